//! Keeps what `cargo pgrx schema` reads from the library. Nothing refers to it, so the linker would leave it out.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--no-gc-sections");
}
