//! Tells from the first sectors of a disk what can boot it.
//!
//! ```text
//!  sector 0        MBR: boot code (440 bytes), four partitions, 55 aa
//!  sector 1        GPT header "EFI PART", with the place of the entries
//!  sector 2 ...    entries: a type GUID each
//! ```
//! A BIOS runs the boot code in sector 0. UEFI reads a system partition. A disk with the one and without the other boots
//! only there. Sectors have 512 bytes, or 4096 on some disks.

use muster_api::firmware::BootKind;

/// How many bytes [`of`] looks at: with sectors of 4096 bytes the usual 128 entries end at 24 KiB.
pub const HEAD_BYTES: usize = 32 << 10;

const BOOT_CODE_BYTES: usize = 440;
const GPT: &[u8] = b"EFI PART";
/// EFI system partition, c12a7328-f81f-11d2-ba4b-00a0c93ec93b, as it is on disk.
const SYSTEM: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
/// BIOS boot partition, 21686148-6449-6e6f-744e-656564454649: where GRUB for a BIOS keeps its core.
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";
/// Types of MBR partitions: a system partition for UEFI.
const MBR_SYSTEM: u8 = 0xef;

/// What can boot the disk with these first [`HEAD_BYTES`] bytes; fewer if the disk is smaller.
#[must_use]
pub fn of(head: &[u8]) -> BootKind {
    let Some(mbr) = head.get(..512).filter(|sector| sector.ends_with(&[0x55, 0xaa])) else { return BootKind::Unknown };
    if mbr[..BOOT_CODE_BYTES].iter().any(|byte| *byte != 0) {
        return BootKind::Bios;
    }
    let types = gpt_types(head);
    let has_system = types.contains(&SYSTEM) || (0..4).any(|n| mbr[446 + 16 * n + 4] == MBR_SYSTEM);
    if has_system && !types.contains(&BIOS_BOOT) { BootKind::UefiOnly } else { BootKind::Unknown }
}

/// The types of the partitions in the GPT; none if there is no GPT, or its entries are elsewhere.
fn gpt_types(head: &[u8]) -> Vec<[u8; 16]> {
    let header = |sector: usize| head.get(sector..sector + 512).filter(|header| header.starts_with(GPT));
    let Some((sector, header)) = [512, 4096].into_iter().find_map(|sector| Some((sector, header(sector)?))) else {
        return Vec::new();
    };
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let place = u64::from_le_bytes(header[72..80].try_into().expect("eight bytes"));
    let (count, bytes) = (number(80), number(84));
    let entry = |n: u32| {
        let at = u64::try_from(sector).ok()?.checked_mul(place)?.checked_add(u64::from(n) * u64::from(bytes))?;
        let at = usize::try_from(at).ok()?;
        head.get(at..at.checked_add(16)?)?.try_into().ok()
    };
    // A number of entries that is nonsense ends at the first one that is not in the head.
    (0..count).map_while(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX: [u8; 16] = [7; 16];

    fn mbr(code: u8, partition: u8) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[..BOOT_CODE_BYTES].fill(code);
        head[446 + 4] = partition;
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        head
    }

    fn gpt(code: u8, sector: usize, types: &[[u8; 16]]) -> Vec<u8> {
        let mut head = mbr(code, 0xee);
        head[sector..sector + 8].copy_from_slice(GPT);
        head[sector + 72] = 2;
        head[sector + 80] = 128;
        head[sector + 84] = 128;
        for (n, kind) in types.iter().enumerate() {
            let at = 2 * sector + 128 * n;
            head[at..at + 16].copy_from_slice(kind);
        }
        head
    }

    #[test]
    fn a_system_partition_without_boot_code_for_a_bios_boots_only_with_uefi() {
        for sector in [512, 4096] {
            assert_eq!(of(&gpt(0, sector, &[SYSTEM, LINUX])), BootKind::UefiOnly);
            assert_eq!(of(&gpt(0, sector, &[LINUX, LINUX, SYSTEM])), BootKind::UefiOnly);
            assert_eq!(of(&gpt(1, sector, &[SYSTEM, LINUX])), BootKind::Bios);
            assert_eq!(of(&gpt(1, sector, &[BIOS_BOOT, SYSTEM])), BootKind::Bios);
            assert_eq!(of(&gpt(0, sector, &[BIOS_BOOT, SYSTEM])), BootKind::Unknown, "its boot code may be patched in");
            assert_eq!(of(&gpt(0, sector, &[LINUX])), BootKind::Unknown, "a disk of data");
        }
        assert_eq!(of(&mbr(0, MBR_SYSTEM)), BootKind::UefiOnly);
        assert_eq!(of(&mbr(0x90, 0x83)), BootKind::Bios);
    }

    #[test]
    fn what_is_no_disk_with_partitions_tells_nothing_and_nonsense_does_no_harm() {
        for head in [&[][..], &[0x55, 0xaa], &[0; 512], &[7; HEAD_BYTES], &mbr(0, 0x83), &mbr(0, 0)[..512]] {
            assert_eq!(of(head), BootKind::Unknown);
        }
        for field in [72..80, 80..84, 84..88] {
            let mut head = gpt(0, 512, &[SYSTEM]);
            head[512 + field.start..512 + field.end].fill(0xff);
            let _ = of(&head);
            head[512 + field.start..512 + field.end].fill(0);
            let _ = of(&head);
        }
    }
}
