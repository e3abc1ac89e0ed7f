//! Finds out what machines on this host can have beside a BIOS: UEFI firmware, and a TPM.
//!
//! Packages of firmware (`ovmf` of Debian and Ubuntu, `edk2-ovmf` of Fedora) describe their builds in files that QEMU
//! defines (`docs/interop/firmware.json`) and that libvirt reads as well:
//!
//! ```text
//!  /etc/qemu/firmware/60-edk2-x86_64.json  before  /usr/share/qemu/firmware/60-edk2-x86_64.json of the same name
//!    executable       code, which all guests share and cannot write
//!    nvram-template   variables as a new machine has them; each instance has a copy on its disk `nvram`
//!    features         secure-boot: it starts only what is signed;  enrolled-keys: with the keys that are in its variables
//! ```
//! The files are read in the order of their names, and the first build that fits is taken. Asking libvirt for just any UEFI
//! would choose a build with Secure Boot, so machines name the build. A build fits only if its variables have the size of
//! the disk `nvram`, because code and variables are mapped at fixed places.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use muster_api::{
    firmware::{Firmware, MachineFeature},
    node_protocol::NVRAM_BYTES,
};
use serde::Deserialize;

/// Where descriptors are, those that count first first.
const FOLDERS: [&str; 2] = ["/etc/qemu/firmware", "/usr/share/qemu/firmware"];
/// What libvirt needs for a TPM: the emulator, and what makes its first state.
const TPM_PROGRAMS: [&str; 2] = ["swtpm", "swtpm_setup"];

/// A build of UEFI firmware on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// File of its code.
    pub code: PathBuf,
    /// File of its variables as a new machine has them.
    pub template: PathBuf,
    /// Whether it starts only what is signed.
    pub secure: bool,
}

/// The build for machines with this firmware; `None` if they need none.
///
/// # Errors
/// There is none on this host: what was found, and what to install.
pub fn build(firmware: Firmware) -> Result<Option<Build>, String> {
    build_in(&FOLDERS.map(Path::new), firmware)
}

fn build_in(folders: &[&Path], firmware: Firmware) -> Result<Option<Build>, String> {
    let secure = match firmware {
        Firmware::Bios => return Ok(None),
        Firmware::Uefi => false,
        Firmware::UefiSecure => true,
    };
    let mut others = Vec::new();
    for file in descriptors(folders) {
        let read = fs::read(&file).map_err(|e| e.to_string());
        match read.and_then(|bytes| serde_json::from_slice::<Descriptor>(&bytes).map_err(|e| e.to_string())) {
            Ok(descriptor) if !descriptor.is_for_us(secure) => {}
            Ok(descriptor) => match descriptor.build(secure) {
                Ok(build) => return Ok(Some(build)),
                Err(why) => others.push(why),
            },
            Err(error) => others.push(format!("{} cannot be read: {error}", file.display())),
        }
    }
    let what = if secure { "UEFI firmware with Secure Boot" } else { "UEFI firmware" };
    let found = if others.is_empty() { String::new() } else { format!(" that fits ({})", others.join("; ")) };
    Err(format!("there is no {what}{found}: apt-get install ovmf"))
}

/// The descriptors in the order of their names. Of two with one name only the first counts; an empty one hides the others.
fn descriptors(folders: &[&Path]) -> Vec<PathBuf> {
    let mut by_name = BTreeMap::new();
    for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "json") {
            by_name.entry(entry.file_name()).or_insert_with(|| entry.path());
        }
    }
    let is_there = |file: &PathBuf| fs::metadata(file).is_ok_and(|file| file.len() > 0);
    by_name.into_values().filter(is_there).collect()
}

/// Whether machines can have a TPM.
///
/// # Errors
/// What is missing, and what to install.
pub fn tpm() -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/bin".into()]).collect();
    let is_there = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    match TPM_PROGRAMS.into_iter().find(|program| !is_there(program)) {
        None => Ok(()),
        Some(program) => Err(format!("there is no {program}: apt-get install swtpm swtpm-tools")),
    }
}

/// Copies the variables of a new machine to a file of the same size that has only zeros. Any other file is left as it is.
///
/// # Errors
/// A file cannot be read or written.
pub fn begin_variables(template: &Path, file: &Path) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(file)?;
    let mut now = Vec::new();
    file.read_to_end(&mut now)?;
    if now.iter().any(|byte| *byte != 0) {
        return Ok(());
    }
    let fresh = fs::read(template)?;
    if fresh.len() != now.len() {
        return Err(io::Error::other(format!(
            "{} has {} bytes, the disk {}",
            template.display(),
            fresh.len(),
            now.len()
        )));
    }
    file.rewind()?;
    file.write_all(&fresh)?;
    // A start after a power loss must find all of it, or only zeros.
    file.sync_all()
}

/// What machines on this host can have that not all hosts offer.
#[must_use]
pub fn features() -> Vec<MachineFeature> {
    let all = [
        (MachineFeature::Uefi, build(Firmware::Uefi).is_ok()),
        (MachineFeature::UefiSecure, build(Firmware::UefiSecure).is_ok()),
        (MachineFeature::Tpm, tpm().is_ok()),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(feature, _)| feature).collect()
}

/// A descriptor, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapping {
    device: String,
    executable: Option<FlashFile>,
    nvram_template: Option<FlashFile>,
}

#[derive(Debug, Deserialize)]
struct FlashFile {
    filename: PathBuf,
    format: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

impl Descriptor {
    /// Whether it is of UEFI firmware for our machines, with Secure Boot or without.
    fn is_for_us(&self, secure: bool) -> bool {
        let has = |feature: &str| self.features.iter().any(|has| has == feature);
        let is_q35 = |machine: &String| machine == "*" || machine.starts_with("pc-q35-");
        self.interface_types.iter().any(|kind| kind == "uefi")
            && self.mapping.device == "flash"
            && self.targets.iter().any(|t| t.architecture == "x86_64" && t.machines.iter().any(is_q35))
            && if secure {
                has("secure-boot") && has("enrolled-keys")
            } else {
                !has("secure-boot") && !has("enrolled-keys") && !has("requires-smm")
            }
    }

    /// The build that it describes.
    fn build(self, secure: bool) -> Result<Build, String> {
        let (Some(code), Some(template)) = (self.mapping.executable, self.mapping.nvram_template) else {
            return Err("one has no variables".to_owned());
        };
        if let Some(packed) = [&code, &template].into_iter().find(|file| file.format != "raw") {
            return Err(format!("{} is {}, not raw", packed.filename.display(), packed.format));
        }
        let bytes = fs::metadata(&template.filename).map(|file| file.len());
        let bytes = bytes.map_err(|e| format!("{}: {e}", template.filename.display()))?;
        if bytes != NVRAM_BYTES {
            return Err(format!("{} has {bytes} bytes, not {NVRAM_BYTES}", template.filename.display()));
        }
        if !code.filename.is_file() {
            return Err(format!("{} is not there", code.filename.display()));
        }
        Ok(Build { code: code.filename, template: template.filename, secure })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    /// A folder with files of firmware and a descriptor of this name.
    fn describe(dir: &TempDir, name: &str, features: &[&str], template_bytes: u64, format: &str) {
        let file = |suffix: &str, bytes: u64| {
            let path = dir.path().join(format!("{name}.{suffix}.fd"));
            fs::File::create(&path).and_then(|file| file.set_len(bytes)).expect("a file");
            json!({ "filename": path, "format": format })
        };
        let descriptor = json!({
            "description": "a build", "interface-types": ["uefi"], "tags": [], "features": features,
            "mapping": { "device": "flash", "executable": file("code", 9), "nvram-template": file("vars", template_bytes) },
            "targets": [{ "architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"] }],
        });
        fs::write(dir.path().join(format!("{name}.json")), descriptor.to_string()).expect("writes");
    }

    fn found(folders: &[&TempDir], firmware: Firmware) -> Result<String, String> {
        let folders: Vec<&Path> = folders.iter().map(|dir| dir.path()).collect();
        let build = build_in(&folders, firmware)?.expect("it is UEFI");
        assert_eq!(build.secure, firmware == Firmware::UefiSecure);
        let name = build.code.file_name().expect("a name").to_string_lossy().into_owned();
        Ok(name.split('.').next().expect("a name").to_owned())
    }

    #[test]
    fn uefi_never_takes_a_build_with_secure_boot_and_uefi_secure_only_one_with_keys() {
        let dir = tempfile::tempdir().expect("folder");
        describe(&dir, "10-enrolled", &["secure-boot", "enrolled-keys", "requires-smm"], NVRAM_BYTES, "raw");
        describe(&dir, "20-no-keys", &["secure-boot", "requires-smm"], NVRAM_BYTES, "raw");
        assert!(found(&[&dir], Firmware::Uefi).expect_err("none").contains("apt-get install ovmf"));
        describe(&dir, "30-plain", &["acpi-s3", "amd-sev"], NVRAM_BYTES, "raw");
        describe(&dir, "40-plain", &[], NVRAM_BYTES, "raw");
        assert_eq!(found(&[&dir], Firmware::Uefi).as_deref(), Ok("30-plain"));
        assert_eq!(found(&[&dir], Firmware::UefiSecure).as_deref(), Ok("10-enrolled"));
        assert_eq!(build_in(&[], Firmware::Bios), Ok(None));
    }

    #[test]
    fn a_build_that_does_not_fit_is_passed_over_and_named_if_there_is_no_other() {
        let dir = tempfile::tempdir().expect("folder");
        describe(&dir, "10-small", &[], 131_072, "raw");
        describe(&dir, "20-packed", &[], NVRAM_BYTES, "qcow2");
        fs::write(dir.path().join("30-broken.json"), "{").expect("writes");
        let why = found(&[&dir], Firmware::Uefi).expect_err("none");
        for part in ["131072 bytes, not 540672", "is qcow2, not raw", "30-broken.json cannot be read", "install ovmf"] {
            assert!(why.contains(part), "{part}: {why}");
        }
        describe(&dir, "40-fits", &[], NVRAM_BYTES, "raw");
        assert_eq!(found(&[&dir], Firmware::Uefi).as_deref(), Ok("40-fits"));
    }

    #[test]
    fn only_variables_of_zeros_are_written() {
        let dir = tempfile::tempdir().expect("folder");
        let (template, file) = (dir.path().join("template"), dir.path().join("file"));
        fs::write(&template, b"fresh").expect("writes");
        for (before, after) in [(&[0; 5], b"fresh"), (b"mine!", b"mine!"), (&[0, 0, 0, 0, 1], &[0, 0, 0, 0, 1])] {
            fs::write(&file, before).expect("writes");
            begin_variables(&template, &file).expect("it begins");
            assert_eq!(fs::read(&file).expect("reads"), after);
        }
        fs::write(&file, [0; 4]).expect("writes");
        assert!(begin_variables(&template, &file).is_err(), "another size");
    }

    #[test]
    fn what_an_operator_puts_first_hides_the_file_of_the_same_name() {
        let (own, packaged) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        describe(&packaged, "10-a", &[], NVRAM_BYTES, "raw");
        describe(&packaged, "20-b", &[], NVRAM_BYTES, "raw");
        assert_eq!(found(&[&own, &packaged], Firmware::Uefi).as_deref(), Ok("10-a"));
        fs::write(own.path().join("10-a.json"), "").expect("writes");
        assert_eq!(found(&[&own, &packaged], Firmware::Uefi).as_deref(), Ok("20-b"));
    }
}
