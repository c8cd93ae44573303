//! Builds the runtime image and hands it to the tracer's binary as bytes.
//!
//! The runtime (`src/runtime`) is a package of this workspace, but it is a freestanding program: another cargo run builds it with its
//! own flags and linker script, then the ELF is flattened to what `mmap` puts at `layout::IMAGE_BASE`:
//!
//! ```text
//! OUT_DIR/runtime.bin    contents from IMAGE_BASE on, without trailing zero bytes
//! OUT_DIR/runtime.rs     const RUNTIME_MEMORY: u64 (size in memory)
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const BASE: u64 = 0x6800_0000_0000;
/// Words of the configuration that are code addresses, and which of them is "behind the system call instruction".
const ADDRESSES: usize = 8;
const SYSCALL_AFTER: usize = 5;

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for part in ["abi", "rt", "heap", "replace", "kernel", "semantics", "translate", "runtime"] {
        println!("cargo::rerun-if-changed=src/{part}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-env-changed=MEMCHECK_INVARIANTS");
    let elf = build(&root, &out.join("runtime-target"));
    let bytes = fs::read(&elf).unwrap_or_else(|e| panic!("{}: {e}", elf.display()));
    let (image, memory) = flatten(&bytes);
    fs::write(out.join("runtime.bin"), image).expect("write the image");
    let text = format!("pub const RUNTIME_MEMORY: u64 = {memory};\n");
    fs::write(out.join("runtime.rs"), text).expect("write the constants");
}

/// Run cargo for the image; returns the path of the ELF file.
fn build(root: &Path, target: &Path) -> PathBuf {
    let script = root.join("src/runtime/image.ld");
    let flags = [
        "-Crelocation-model=pic".to_owned(),
        "-Ccode-model=small".into(),
        "-Cforce-unwind-tables=no".into(),
        "-Cforce-frame-pointers=no".into(),
        "-Cno-redzone=yes".into(),
        "-Clink-arg=-nostartfiles".into(),
        "-Clink-arg=-nostdlib".into(),
        "-Clink-arg=-static".into(),
        "-Clink-arg=-no-pie".into(),
        "-Clink-arg=-Wl,--gc-sections".into(),
        "-Clink-arg=-Wl,--build-id=none".into(),
        "-Clink-arg=-Wl,-z,norelro".into(),
        "-Clink-arg=-Wl,-z,noexecstack".into(),
        "-Clink-arg=-Wl,-u,MEMCHECK_START,-u,MEMCHECK_CONFIG".into(),
        format!("-Clink-arg=-Wl,-T,{}", script.display()),
    ];
    let profile = if env::var_os("MEMCHECK_INVARIANTS").is_some() { "image-checked" } else { "image" };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let cargo_own = text.starts_with("CARGO_") && text != "CARGO_HOME";
        if cargo_own || text.starts_with("DEP_") || matches!(&*text, "RUSTFLAGS" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER") {
            cargo.env_remove(&name);
        }
    }
    cargo
        .current_dir(root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args([
            "build",
            "--profile",
            profile,
            "--locked",
            "-p",
            "memcheck-runtime",
            "--features",
            "image",
            "--bin",
            "memcheck-runtime-image",
            "--target",
            "x86_64-unknown-linux-gnu",
        ])
        .arg("--target-dir")
        .arg(target);
    let status = cargo.status().expect("cargo can be run");
    assert!(status.success(), "the runtime image did not build");
    target.join(format!("x86_64-unknown-linux-gnu/{profile}/memcheck-runtime-image"))
}

/// Contents from BASE on, and size in memory.
fn flatten(bytes: &[u8]) -> (Vec<u8>, u64) {
    let elf = goblin::elf::Elf::parse(bytes).expect("the image is ELF");
    let loads = || elf.program_headers.iter().filter(|p| p.p_type == goblin::elf::program_header::PT_LOAD && p.p_vaddr >= BASE);
    let memory = loads().map(|p| p.p_vaddr + p.p_memsz - BASE).max().expect("segments");
    let mut image = vec![0u8; memory as usize];
    for p in loads() {
        let (at, from, n) = ((p.p_vaddr - BASE) as usize, p.p_offset as usize, p.p_filesz as usize);
        image[at..at + n].copy_from_slice(&bytes[from..from + n]);
    }
    let start = elf.syms.iter().find(|s| elf.strtab.get_at(s.st_name) == Some("MEMCHECK_START")).expect("the table of addresses");
    let at = (start.st_value - BASE) as usize;
    // The configuration block is first: its magic, then ADDRESSES words that come from the table.
    for i in 0..ADDRESSES {
        let from = at + 8 * i;
        let mut word = u64::from_le_bytes(image[from..from + 8].try_into().expect("eight bytes"));
        assert!(word > BASE, "an address was not relocated");
        if i == SYSCALL_AFTER {
            word += 2;
        }
        image[8 + 8 * i..16 + 8 * i].copy_from_slice(&word.to_le_bytes());
    }
    while image.last() == Some(&0) {
        image.pop();
    }
    (image, memory)
}
