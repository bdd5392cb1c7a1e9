//! Planning over hand-made looks.
