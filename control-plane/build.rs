//! Packs the dashboard into the binary: every file of `dashboard/dist`, with a brotli and a gzip body beside it where that
//! is smaller. Without that folder, the page that says how to build it is packed instead. npm is never called from here.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

/// The best that brotli does in a second or so. Build scripts are not optimised.
const BROTLI_QUALITY: u32 = 9;
/// Size of brotli's window, as a power of two.
const BROTLI_WINDOW: u32 = 22;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=build.rs");
    let built = Path::new("dashboard/dist").join("index.html").exists();
    // A folder that is not there would count as changed at every build. It appears in the folder above it.
    println!("cargo::rerun-if-changed={}", if built { "dashboard/dist" } else { "dashboard" });
    pack(Path::new(if built { "dashboard/dist" } else { "src/dashboard/not-built" }), "dashboard", &out);
    pack(Path::new("src/dashboard/fixture"), "fixture", &out);
}

/// Writes `OUT_DIR/NAME.rs`, a list of the files below `folder`.
fn pack(folder: &Path, name: &str, out: &Path) {
    let mut paths = Vec::new();
    list(folder, &mut paths);
    paths.sort();
    println!("cargo::rerun-if-changed={}", folder.display());
    let packed = out.join(name);
    fs::create_dir_all(&packed).unwrap_or_else(|e| panic!("make {}: {e}", packed.display()));
    let mut code = String::from("&[\n");
    for (n, path) in paths.iter().enumerate() {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        let smaller = |coding: &str, body: Vec<u8>| {
            if body.len() >= bytes.len() {
                return "None".to_owned();
            }
            format!("Some({})", include(&packed.join(format!("{n}.{coding}")), &body))
        };
        let relative = path.strip_prefix(folder).expect("it is below the folder");
        code += &format!(
            "    Packed {{ path: {:?}, plain: {}, brotli: {}, gzip: {} }},\n",
            relative.to_str().expect("names of files are UTF-8"),
            include(&packed.join(n.to_string()), &bytes),
            smaller("br", brotli(&bytes)),
            smaller("gz", gzip(&bytes)),
        );
    }
    code += "]\n";
    let list = out.join(format!("{name}.rs"));
    fs::write(&list, code).unwrap_or_else(|e| panic!("write {}: {e}", list.display()));
}

/// All files below `folder`, but hidden ones.
fn list(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("read {}: {e}", folder.display())) {
        let path = entry.unwrap_or_else(|e| panic!("read {}: {e}", folder.display())).path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        match path.is_dir() {
            _ if hidden => {}
            true => list(&path, into),
            false => into.push(path),
        }
    }
}

/// Writes a body, and gives the code that includes it. It is a copy, so that the folder may change while rustc runs.
fn include(path: &Path, body: &[u8]) -> String {
    fs::write(path, body).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    format!("include_bytes!({path:?})")
}

fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, BROTLI_WINDOW);
    writer.write_all(bytes).expect("memory takes all");
    writer.into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::best());
    writer.write_all(bytes).expect("memory takes all");
    writer.finish().expect("memory takes all")
}
