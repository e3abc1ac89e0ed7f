//! The `muster` binary. All of it is in the library beside it.

fn main() -> std::process::ExitCode {
    muster_cli::main()
}
