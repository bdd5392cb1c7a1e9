//! The tools above the packet filters, each with its traps, on the real programs.

mod ufw;
