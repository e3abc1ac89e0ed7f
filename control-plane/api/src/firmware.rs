//! What a machine runs before the boot loader on its disk, and what else its host must provide for it.

use serde::{Deserialize, Serialize};

use crate::OrUnknown;

/// What can boot a disk, as far as the first sectors of an imported file tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootKind {
    /// It has boot code for a BIOS.
    Bios,
    /// It has a system partition for UEFI and no boot code for a BIOS.
    UefiOnly,
    /// Its first sectors tell neither, or nobody looked: only imports are looked at.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The program that starts a guest's boot loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// It runs the boot code in the first sector.
    #[default]
    Bios,
    /// It reads the system partition. Its variables are a disk of the instance, `nvram`.
    Uefi,
    /// As `uefi`, and it starts only boot loaders that are signed with a key of Microsoft.
    UefiSecure,
}

/// The firmware that somebody asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FirmwareChoice {
    /// What was found out of the disk.
    #[default]
    Auto,
    /// Boot code in the first sector.
    Bios,
    /// A system partition.
    Uefi,
    /// A system partition, and only signed boot loaders.
    UefiSecure,
}

/// What older controllers give every guest.
pub(crate) fn bios() -> OrUnknown<Firmware> {
    Firmware::Bios.into()
}

impl Firmware {
    /// The firmware for a disk that was looked at. A disk that a BIOS can boot gets one: every node has it.
    #[must_use]
    pub const fn of(boot: BootKind) -> Self {
        match boot {
            BootKind::UefiOnly => Self::Uefi,
            BootKind::Bios | BootKind::Unknown => Self::Bios,
        }
    }

    /// Whether its variables are a disk of the instance.
    #[must_use]
    pub const fn has_nvram(self) -> bool {
        !matches!(self, Self::Bios)
    }
}

impl FirmwareChoice {
    /// What was said; `None` for `auto`.
    #[must_use]
    pub const fn said(self) -> Option<Firmware> {
        match self {
            Self::Auto => None,
            Self::Bios => Some(Firmware::Bios),
            Self::Uefi => Some(Firmware::Uefi),
            Self::UefiSecure => Some(Firmware::UefiSecure),
        }
    }
}

/// Something that the machines of some nodes can have and those of others cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MachineFeature {
    /// Firmware `uefi`.
    Uefi,
    /// Firmware `uefi_secure`.
    UefiSecure,
    /// A TPM 2.0.
    Tpm,
}

/// The features that a node must have for machines with this firmware, and with a TPM if `tpm`.
#[must_use]
pub fn features(firmware: Firmware, tpm: bool) -> Vec<MachineFeature> {
    let firmware = match firmware {
        Firmware::Bios => None,
        Firmware::Uefi => Some(MachineFeature::Uefi),
        Firmware::UefiSecure => Some(MachineFeature::UefiSecure),
    };
    firmware.into_iter().chain(tpm.then_some(MachineFeature::Tpm)).collect()
}
