//! Where a request does not fit, in the words of the command that sent it: the option or argument that filled the place.

use clap::Command;

/// Each place of a request, a JSON pointer or the name of a query parameter, and what fills it. Where commands fill it in
/// different ways, the first way that a command has is the one it uses.
const PLACES: &[(&str, &[&str])] = &[
    ("/name", &["--name", "NAME"]),
    ("/count", &["--count", "COUNT"]),
    ("/min_count", &["--min-count"]),
    ("/cpus", &["--cpus"]),
    ("/memory_bytes", &["--memory"]),
    ("/disk_bytes", &["--disk-size"]),
    ("/disks", &["--disk"]),
    ("/disk", &["DISK"]),
    ("/size_bytes", &["--size", "SIZE"]),
    ("/runtime", &["--runtime"]),
    ("/firmware", &["--firmware"]),
    ("/tpm", &["--tpm"]),
    ("/ready/probe", &["--ready"]),
    ("/ready/marker", &["--ready-marker"]),
    ("/ready/timeout_s", &["--ready-timeout"]),
    ("/ready_timeout_s", &["--ready-timeout"]),
    ("/on_ready_timeout", &["--on-ready-timeout"]),
    ("/on_host_start", &["--on-host-start"]),
    ("/command", &["COMMAND"]),
    ("/stdin", &["--stdin"]),
    ("/placement/policy", &["--pack"]),
    ("/placement/zones", &["--zone"]),
    ("/placement/nodes", &["--node"]),
    ("/placement/max_per_node", &["--max-per-node"]),
    ("/nics/0/security_groups", &["--security-group"]),
    ("/nics/0/ports", &["--publish"]),
    ("/nics", &["--network"]),
    ("/deadline_s", &["--deadline"]),
    ("/labels", &["--label"]),
    ("/source/image", &["--image", "FROM"]),
    ("/source/version", &["--version", "FROM"]),
    ("/source/snapshot", &["--snapshot"]),
    ("/remove", &["--remove"]),
    ("/force", &["--force"]),
    ("/timeout_s", &["--grace"]),
    ("/accept_loss", &["--accept-loss"]),
    ("/select/deployment", &["--deployment", "OF"]),
    ("/select/label", &["--label"]),
    ("/select/instances", &["INSTANCE", "OF"]),
    ("/consistency", &["--consistency"]),
    ("/max_pause_ms", &["--max-pause"]),
    ("/chunk_bytes", &["--chunk-size"]),
    ("/mode", &["--mode"]),
    ("/bridge", &["--bridge"]),
    ("/subnet_v4", &["--subnet"]),
    ("/subnet_v6", &["--subnet-v6"]),
    ("/gateway", &["--gateway"]),
    ("/dns", &["--dns"]),
    ("/mtu", &["--mtu"]),
    ("/rules", &["--allow"]),
    ("/role", &["--role"]),
    ("/ttl_s", &["--ttl"]),
    ("/uses", &["--uses"]),
    ("/token", &["TOKEN"]),
    ("/project", &["--project"]),
    ("/deployment", &["--deployment"]),
    ("state", &["--state"]),
    ("label", &["--label"]),
    ("deployment", &["--deployment"]),
    ("instance", &["--instance"]),
    ("node", &["--node"]),
    ("network", &["--network"]),
    ("firmware", &["--firmware"]),
    ("project", &["--project"]),
    ("format", &["--format"]),
    ("sha256", &["--sha256"]),
    ("tail", &["--tail"]),
    ("after", &["--after"]),
];

/// The options and arguments of one command. `muster api` has none of those in [`PLACES`], so it shows places as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Words(&'static [String]);

impl Words {
    /// Those of the command that is called with these words.
    pub(crate) fn of(command: &Command, path: &[&str]) -> Self {
        let called = path.iter().try_fold(command, |command, word| command.find_subcommand(word)).unwrap_or(command);
        let words: Vec<String> = called.get_arguments().map(word).collect();
        // It is made once, and lives as long as the process.
        Self(words.leak())
    }

    /// The option or argument that fills a place; the place itself if there is none.
    pub(crate) fn option(self, place: &str) -> &str {
        let is_of =
            |known: &str| place.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let known = PLACES.iter().find(|(known, _)| is_of(known));
        known.and_then(|(_, ways)| self.first(ways)).unwrap_or(place)
    }

    /// A text in which query parameters are called like the options that set them.
    pub(crate) fn rename(self, text: &str) -> String {
        let parameters = PLACES.iter().filter(|(place, _)| !place.starts_with('/'));
        parameters.fold(text.to_owned(), |text, (name, ways)| match self.first(ways) {
            Some(option) => text.replace(&format!("the query parameter '{name}'"), option),
            None => text,
        })
    }

    fn first(self, ways: &[&'static str]) -> Option<&'static str> {
        ways.iter().copied().find(|way| self.0.iter().any(|word| word == way))
    }
}

/// `--long` for an option, `VALUE` for an argument.
fn word(arg: &clap::Arg) -> String {
    match (arg.get_long(), arg.get_value_names()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some([name, ..])) => name.to_string(),
        (None, _) => arg.get_id().as_str().to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    fn words(path: &[&str]) -> Words {
        let mut command = args::command();
        command.build();
        Words::of(&command, path)
    }

    #[test]
    fn every_option_of_the_table_is_one_of_a_command() {
        let mut command = args::command();
        command.build();
        let mut known = Vec::new();
        let mut to_see = vec![&command];
        while let Some(command) = to_see.pop() {
            known.extend(command.get_arguments().map(word));
            to_see.extend(command.get_subcommands());
        }
        let gone: Vec<_> =
            PLACES.iter().flat_map(|(_, ways)| *ways).filter(|way| !known.contains(&(**way).to_owned())).collect();
        assert!(gone.is_empty(), "{gone:?} are in no command");
    }

    #[test]
    fn a_place_has_the_name_that_the_command_gives_it() {
        for (path, place, option) in [
            (&["deploy"][..], "/count", "--count"),
            (&["deploy"], "/placement/nodes/0", "--node"),
            (&["deploy"], "/memory_bytes", "--memory"),
            (&["deploy"], "/nics/0/ports/1/node_port", "--publish"),
            (&["deploy"], "/nics/1/network", "--network"),
            (&["network", "create"], "/subnet_v4", "--subnet"),
            (&["security-group", "set"], "/rules/0/from", "--allow"),
            (&["deployment", "create"], "/ready/timeout_s", "--ready-timeout"),
            (&["deployment", "scale"], "/count", "COUNT"),
            (&["deployment", "stop"], "/timeout_s", "--grace"),
            (&["snapshot", "create"], "/select/deployment", "OF"),
            (&["token", "create"], "/name", "--name"),
            (&["image", "clone"], "/name", "NAME"),
            (&["image", "import"], "format", "--format"),
            (&["api"], "/count", "/count"),
            (&["deploy"], "/of_a_later_release", "/of_a_later_release"),
        ] {
            assert_eq!(words(path).option(place), option, "{path:?}");
        }
        let said = words(&["instance", "log"]).rename("the query parameter 'tail': expected a size");
        assert_eq!(said, "--tail: expected a size");
    }
}
