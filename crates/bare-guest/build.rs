//! Links the program for a machine that has nothing but memory.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link.ld");
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
    let script = format!("-Wl,--script={folder}/link.ld");
    let arguments = [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        script.as_str(),
    ];
    for argument in arguments {
        println!("cargo::rustc-link-arg-bin=firelane-bare={argument}");
    }
}
