//! The `muster` binary: see the library beside it.

fn main() -> std::process::ExitCode {
    muster_cli::main()
}
