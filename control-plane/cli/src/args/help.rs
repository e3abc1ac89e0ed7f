//! The layout of `-h` and `--help`.
//!
//! Options that every command has would hide a command's own ones. So only `--help` of `muster` and of a noun lists them,
//! under their own heading. All other help texts name the command that lists them. Lines have at most 80 columns.

use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// The command line as it is parsed and explained.
pub(crate) fn command() -> Command {
    let command = Cli::command();
    let everywhere: Vec<Arg> = command.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let hidden: Vec<Arg> = everywhere.into_iter().map(|arg| arg.hide(true)).collect();
    laid_out(command, "muster", "muster", &hidden)
}

/// Lays out a command that is typed as `path`, and those below it. `above` is typed for the noun that it belongs to.
fn laid_out(command: Command, path: &str, above: &str, hidden: &[Arg]) -> Command {
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    if verbs.is_empty() {
        // clap adds an option of every command only where there is none of this id yet.
        let pointer = pointer(above);
        let long = command.get_after_long_help().map_or(pointer.clone(), |more| format!("{more}\n\n{pointer}"));
        return command.args(hidden).after_help(pointer).after_long_help(long);
    }
    let command = command.after_help(pointer(path));
    verbs.into_iter().fold(command, |command, verb| {
        let typed = format!("{path} {verb}");
        command.mut_subcommand(verb, |verb| laid_out(verb, &typed, path, hidden))
    })
}

fn pointer(lists_them: &str) -> String {
    format!("Options of every command, such as -o json: {lists_them} --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that is listed in help, with the words that call it.
    fn all(command: &Command, path: &str) -> Vec<(String, Command)> {
        let below = command.get_subcommands().filter(|c| !c.is_hide_set());
        let below = below.flat_map(|c| all(c, &format!("{path} {}", c.get_name())));
        std::iter::once((path.to_owned(), command.clone())).chain(below).collect()
    }

    fn built() -> Vec<(String, Command)> {
        let mut command = command();
        command.build();
        all(&command, "muster")
    }

    #[test]
    fn no_line_of_any_help_text_has_more_than_80_columns() {
        let all = built();
        assert!(all.len() > 50, "all commands are walked over: {}", all.len());
        let mut wide = String::new();
        for (path, mut command) in all {
            let texts = [command.render_help().to_string(), command.render_long_help().to_string()];
            for line in texts.iter().flat_map(|text| text.lines()).filter(|line| line.chars().count() > 80) {
                wide += &format!("{path}: {line}\n");
            }
        }
        assert!(wide.is_empty(), "{wide}");
    }

    #[test]
    fn options_of_every_command_are_listed_once_per_noun_under_their_own_heading() {
        for (path, mut command) in built() {
            let is_group = command.has_subcommands();
            let (short, long) = (command.render_help().to_string(), command.render_long_help().to_string());
            assert!(!short.contains("--retry-for"), "{path} -h: {short}");
            assert_eq!(long.contains("--retry-for"), is_group, "{path} --help: {long}");
            assert_eq!(long.matches("\nOptions of every command:\n").count(), usize::from(is_group), "{path}: {long}");
            let noun = if is_group { path.as_str() } else { path.rsplit_once(' ').expect("two words").0 };
            assert!(short.contains(&format!("such as -o json: {noun} --help")), "{path} -h: {short}");
        }
    }

    #[test]
    fn the_short_help_is_shorter_than_the_long_one() {
        for (path, mut command) in built().into_iter().filter(|(_, command)| command.has_subcommands()) {
            let [short, long] =
                [command.render_help(), command.render_long_help()].map(|t| t.to_string().lines().count());
            assert!(short < long, "{path}: {short} lines against {long}");
        }
    }
}
