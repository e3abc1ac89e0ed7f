//! Fuzz target of the kernel's requests. `storage_core::fuzz` tells how to run it long.

use storage_core::fuzz::{CountingAllocator, Fuzz};

use super::wire::{Malformed, Operation, Request, Terms, WRITE_DATA_AT};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A request with this opcode, long enough for the arguments of each.
fn request(opcode: u32) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes[4..8].copy_from_slice(&opcode.to_ne_bytes());
    bytes[8..16].copy_from_slice(&7u64.to_ne_bytes());
    bytes[40..44].copy_from_slice(&7u32.to_ne_bytes());
    bytes[44..48].copy_from_slice(&38u32.to_ne_bytes());
    reseal(&mut bytes);
    // The data's length, in the arguments of a WRITE.
    let data = u32::try_from(bytes.len() - WRITE_DATA_AT).expect("short");
    bytes[56..60].copy_from_slice(&data.to_ne_bytes());
    bytes
}

/// Writes the length of the whole request into its header.
fn reseal(bytes: &mut [u8]) {
    let length = u32::try_from(bytes.len()).expect("short").to_ne_bytes();
    if let Some(field) = bytes.get_mut(..4) {
        field.copy_from_slice(&length);
    }
}

#[test]
fn fuzz_request() {
    let terms = Terms { request_pages_max: 256, in_flight_max: 64 };
    // The kernel's own bytes are not copied. Only an answer to its first request, or the reason why there is none,
    // takes memory.
    let fuzz = Fuzz::new((0..=48).map(request)).reseal(reseal).memory_max(|_| 4096);
    fuzz.run(|bytes| -> Result<(), Malformed> {
        match Request::parse(bytes)?.operation {
            Operation::Init(hello) => drop(hello.answer(terms)),
            Operation::Write { data, .. } => assert_eq!(Some(data), bytes.get(WRITE_DATA_AT..)),
            _ => {}
        }
        Ok(())
    });
}
