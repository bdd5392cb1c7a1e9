//! Whether the tests try a real CSF too: a test's name has to say which it was, so it is settled when they are built.

fn main() {
    println!("cargo::rerun-if-changed=tests/conformance/build.rs");
    println!("cargo::rerun-if-env-changed=EDGEALLOW_CSF_ROOT");
    println!("cargo::rustc-check-cfg=cfg(csf_release)");
    if std::env::var_os("EDGEALLOW_CSF_ROOT").is_some() {
        println!("cargo::rustc-cfg=csf_release");
    }
}
