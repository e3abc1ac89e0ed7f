//! `muster image …` and `muster version …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use muster_api::{firmware::FirmwareChoice, units::parse_size};

use super::{Listing, Removal, firmware};
use crate::units;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Upload a raw or qcow2 file; if the image exists, it gets a further version
    Import {
        /// Name of the image
        name: String,
        /// The file, or - for standard input
        file: PathBuf,
        /// The SHA-256 the file must have
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// The format the file must have [default: detected]
        #[arg(long, value_parser = ["raw", "qcow2"])]
        format: Option<String>,
        /// Chunk size of a new image, a power of two from 64KiB to 4MiB; it cannot be changed later [default: 256KiB]
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        chunk_size: Option<u64>,
        /// Label of a new image; may be given many times
        #[arg(long, value_name = "K=V", value_parser = units::parse_label)]
        label: Vec<(String, String)>,
        #[command(flatten)]
        properties: ImageProperties,
    },
    /// Say what is known of the system on an image; deployments take it as their defaults
    Set {
        /// Name or id of the image
        image: String,
        #[command(flatten)]
        properties: ImageProperties,
        /// Forget what was said of this; may be given many times
        #[arg(long, value_name = "PROPERTY")]
        unset: Vec<ImageProperty>,
    },
    /// List images, by name
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        listing: Listing,
        /// Only images whose machines have this firmware; may be given many times
        #[arg(long, value_name = "WORD", value_parser = ["bios", "uefi", "uefi_secure"])]
        firmware: Vec<String>,
    },
    /// Show one image
    Show {
        /// Name or id of the image
        image: String,
    },
    /// List the versions of an image, by number
    Versions {
        /// Name or id of the image
        image: String,
    },
    /// Write a version of an image to a raw, sparse file
    Export {
        /// IMAGE for its newest version, or IMAGE@N for version N
        image: String,
        #[command(flatten)]
        to: ExportTo,
    },
    /// Make a new image whose first version is an existing one; no data is copied
    Clone {
        /// IMAGE, IMAGE@N, or the id of a version
        from: String,
        /// Name of the new image
        name: String,
    },
    /// Delete images; data that something else still uses is kept
    #[command(alias = "delete")]
    Rm(Removal),
}

/// What is known of the system on an image.
#[derive(Args, Debug)]
pub(crate) struct ImageProperties {
    /// Operating system, for example debian-12
    #[arg(long, value_name = "NAME")]
    pub(crate) os: Option<String>,
    /// User of its guests for signing in
    #[arg(long, value_name = "USER")]
    pub(crate) default_user: Option<String>,
    /// Least size of a disk that starts from it
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) min_disk: Option<u64>,
    /// Least memory of a machine that starts from it
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) min_memory: Option<u64>,
    /// What starts the boot loader of machines that start from it; auto: what its first sectors tell
    #[arg(long, value_name = "WORD", value_parser = firmware())]
    pub(crate) firmware: Option<FirmwareChoice>,
}

/// One of the [`ImageProperties`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageProperty {
    Os,
    DefaultUser,
    MinDisk,
    MinMemory,
    Firmware,
}

#[derive(Args, Debug)]
pub(crate) struct ExportTo {
    /// The file to write, or - for standard output
    pub(crate) file: PathBuf,
    /// Replace the file if it exists
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VersionCommand {
    /// Show one version
    Show {
        /// Id of the version
        version: String,
    },
    /// Show how many chunks of a version are zeros, are shared with its parent, and were read by the last boots
    Chunks {
        /// Id of the version
        version: String,
    },
    /// Write a version to a raw, sparse file
    Export {
        /// Id of the version
        version: String,
        #[command(flatten)]
        to: ExportTo,
    },
    /// Delete versions
    #[command(alias = "delete")]
    Rm(Removal),
}
