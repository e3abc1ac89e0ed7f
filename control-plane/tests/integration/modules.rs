//! Arrows between modules and between crates, read from the sources of the whole workspace.
//!
//! Three rules hold: the top-level modules of a crate form no circle; the controller's layers use each other only as
//! [`LAYERS`] says; crates depend on each other only as [`CRATES`] says. An arrow is a `use` declaration or a path that
//! begins with `crate`, `super`, `self` or the name of a child module. Comments and `#[cfg(test)]` items do not count.
//! A name that a module re-exports from its own children counts as an arrow to the child.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Each crate by its folder, and the folders of the crates it may depend on, also for its tests.
const CRATES: &[(&str, &[&str])] = &[
    ("storage-core", &[]),
    ("storage-core/pool", &["storage-core"]),
    ("control-plane/api", &["storage-core"]),
    ("control-plane/cli", &["control-plane/api"]),
    ("control-plane", &["control-plane/api", "storage-core", "storage-core/pool"]),
    ("node-agent", &["control-plane/api", "storage-core", "storage-core/pool"]),
    ("tests", &["control-plane", "control-plane/api", "node-agent", "storage-core", "storage-core/pool"]),
];

/// Each top-level module of the controller, and the ones it may use. `lib.rs` puts them together and may use all.
const LAYERS: &[(&str, &[&str])] = &[
    ("http", &["app", "dashboard", "export", "ingest", "telemetry", "wake"]),
    ("reconcile", &["app", "domain", "store", "wake"]),
    ("app", &["ca", "clock", "config", "domain", "export", "ingest", "scheduler", "store", "wake"]),
    ("ingest", &["domain"]),
    ("export", &["domain"]),
    ("store", &["clock", "domain", "wake"]),
    ("domain", &[]),
    ("scheduler", &[]),
    ("wake", &[]),
    ("clock", &[]),
    ("dashboard", &[]),
    ("ca", &[]),
    ("tls", &["ca", "clock", "config"]),
    ("config", &["domain", "store"]),
    ("telemetry", &["config"]),
    ("history", &["app", "ca", "clock", "config", "data_dir", "store", "wake"]),
    ("data_dir", &[]),
];

/// Crates in which the files of every folder form no circle either.
const EVERY_FOLDER: &[&str] = &["control-plane", "control-plane/api"];

#[test]
fn modules_of_a_crate_form_no_circle() {
    let mut report = String::new();
    for (folder, _) in CRATES.iter().filter(|(folder, _)| workspace().join(folder).exists()) {
        let sources = if *folder == "tests" { "harness" } else { "src" };
        let krate = Crate::read(&workspace().join(folder).join(sources));
        let levels = if EVERY_FOLDER.contains(folder) { krate.folders() } else { vec![Vec::new()] };
        for level in &levels {
            for circle in krate.circles(level) {
                let _ = write!(report, "\n{folder}: {}", circle.text);
            }
        }
    }
    assert!(report.is_empty(), "modules use each other in a circle: {report}");
}

#[test]
fn the_controller_keeps_its_layers() {
    let krate = Crate::read(&workspace().join("control-plane/src"));
    let report = krate.against(LAYERS);
    assert!(report.is_empty(), "arrows that LAYERS does not allow: {report}");
}

#[test]
fn crates_depend_downwards_only() {
    let crates: Vec<(String, String)> = members(&read(&workspace().join("Cargo.toml")))
        .into_iter()
        .map(|folder| (read(&workspace().join(&folder).join("Cargo.toml")), folder))
        .map(|(manifest, folder)| (folder, manifest))
        .collect();
    let report = crate_arrows(&crates);
    assert!(report.is_empty(), "dependencies that CRATES does not allow: {report}");
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The folders that `members = [...]` of the workspace's manifest lists.
fn members(manifest: &str) -> Vec<String> {
    let list =
        manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Dependencies on crates of the workspace that [`CRATES`] does not allow, as text. `crates` are folders and manifests.
fn crate_arrows(crates: &[(String, String)]) -> String {
    let name_of = |manifest: &str| {
        let line = manifest.lines().find_map(|line| line.strip_prefix("name = \""));
        line.map_or(String::new(), |rest| rest.trim_end_matches('"').to_owned())
    };
    let folders: BTreeMap<String, &str> =
        crates.iter().map(|(folder, manifest)| (name_of(manifest), folder.as_str())).collect();
    let mut report = String::new();
    for (folder, manifest) in crates {
        let Some((_, allowed)) = CRATES.iter().find(|(of, _)| of == folder) else {
            let _ = write!(report, "\n{folder} is not in CRATES: say there what it may use");
            continue;
        };
        let mut in_dependencies = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies]");
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or("");
            if let Some(used) = folders.get(name).filter(|used| in_dependencies && **used != folder)
                && !allowed.contains(used)
            {
                let _ = write!(report, "\n{folder} depends on {used}");
            }
        }
    }
    report
}

/// A token of Rust that matters here. Literals and comments are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Mark(char),
    /// `::`
    Path,
}

impl Token {
    fn is(&self, mark: char) -> bool {
        *self == Self::Mark(mark)
    }

    fn word(&self) -> Option<&str> {
        if let Self::Word(word) = self { Some(word) } else { None }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |n: usize| chars.get(n).copied().unwrap_or('\0');
    let (mut found, mut n) = (Vec::new(), 0);
    while n < chars.len() {
        let c = at(n);
        if c == '/' && at(n + 1) == '/' {
            while n < chars.len() && at(n) != '\n' {
                n += 1;
            }
        } else if c == '/' && at(n + 1) == '*' {
            let mut depth = 0;
            while n < chars.len() {
                match (at(n), at(n + 1)) {
                    ('/', '*') => (depth, n) = (depth + 1, n + 2),
                    ('*', '/') => (depth, n) = (depth - 1, n + 2),
                    _ => n += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if c == '"' {
            n = after_string(&chars, n);
        } else if c == '\'' {
            // A character, else a lifetime.
            if at(n + 1) == '\\' || at(n + 2) == '\'' {
                n += 2;
                while n < chars.len() && at(n) != '\'' {
                    n += 1;
                }
            }
            n += 1;
        } else if c.is_alphanumeric() || c == '_' {
            let from = n;
            while at(n).is_alphanumeric() || at(n) == '_' {
                n += 1;
            }
            let word: String = chars[from..n].iter().collect();
            let raw = matches!(word.as_str(), "r" | "br" | "cr");
            let hashes = chars[n..].iter().take_while(|c| **c == '#').count();
            if raw && at(n + hashes) == '"' {
                let end: String = std::iter::once('"').chain("#".repeat(hashes).chars()).collect();
                let rest: String = chars[n + hashes + 1..].iter().collect();
                let inside = rest.find(&end).map_or(rest.chars().count(), |byte| rest[..byte].chars().count());
                n += hashes + 1 + inside + end.len();
            } else {
                found.push(Token::Word(word));
            }
        } else if c == ':' && at(n + 1) == ':' {
            found.push(Token::Path);
            n += 2;
        } else {
            if !c.is_whitespace() {
                found.push(Token::Mark(c));
            }
            n += 1;
        }
    }
    found
}

fn after_string(chars: &[char], mut n: usize) -> usize {
    n += 1;
    while n < chars.len() && chars[n] != '"' {
        n += if chars[n] == '\\' { 2 } else { 1 };
    }
    n + 1
}

/// The tokens without `#[cfg(test)]` items, and the names of the modules in files of their own among these.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut test_files, mut n) = (Vec::new(), Vec::new(), 0);
    while n < tokens.len() {
        if !(tokens[n].is('#') && tokens.get(n + 1).is_some_and(|t| t.is('['))) {
            kept.push(tokens[n].clone());
            n += 1;
            continue;
        }
        let end = closing(tokens, n + 1);
        let words: Vec<_> = tokens[n..end].iter().filter_map(Token::word).collect();
        if words == ["cfg", "test"] {
            n = end;
            while tokens.get(n).is_some_and(|t| t.is('#')) {
                n = closing(tokens, n + 1);
            }
            let item = item_end(tokens, n);
            let words: Vec<_> = tokens[n..item].iter().filter_map(Token::word).collect();
            if let ["mod", name] = words[..] {
                test_files.push(name.to_owned());
            }
            n = item;
        } else {
            n = end;
        }
    }
    (kept, test_files)
}

/// The place after the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (n, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return n + 1;
        }
    }
    tokens.len()
}

/// The place after the item that begins at `from`.
fn item_end(tokens: &[Token], from: usize) -> usize {
    let words: Vec<_> = tokens[from..].iter().take(4).filter_map(Token::word).collect();
    let ends_with_semicolon = words.iter().any(|word| matches!(*word, "use" | "static" | "type" | "let"))
        || (words.contains(&"const") && !words.contains(&"fn"));
    let mut n = from;
    while n < tokens.len() {
        match &tokens[n] {
            Token::Mark(';') => return n + 1,
            Token::Mark('{') => {
                n = closing(tokens, n);
                if !ends_with_semicolon {
                    return n;
                }
            }
            Token::Mark('(' | '[') => n = closing(tokens, n),
            _ => n += 1,
        }
    }
    n
}

/// A path that a file names, from the root of its crate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mention {
    path: Vec<String>,
    /// The name under which the module gives it to others: the path is an alias then, no arrow.
    reexported: Option<String>,
}

/// The paths named in a file that is the module `module`. `children` are the modules directly below it.
fn mentions(tokens: &[Token], module: &[String], children: &BTreeSet<String>) -> Vec<Mention> {
    let mut found = Vec::new();
    // Modules written within the file, each with the depth of its braces.
    let (mut inline, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
    let mut n = 0;
    while n < tokens.len() {
        let here: Vec<String> = module.iter().chain(inline.iter().map(|(name, _)| name)).cloned().collect();
        let known = if inline.is_empty() { children } else { &BTreeSet::new() };
        match &tokens[n] {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') => {
                inline.pop_if(|(_, at)| *at == depth);
                depth = depth.saturating_sub(1);
            }
            Token::Word(word) if word == "mod" => {
                if let (Some(Token::Word(name)), Some(Token::Mark('{'))) = (tokens.get(n + 1), tokens.get(n + 2)) {
                    inline.push((name.clone(), depth + 1));
                }
            }
            Token::Word(word) if word == "use" => {
                let public = tokens[..n]
                    .iter()
                    .rev()
                    .take(6)
                    .take_while(|t| !t.is(';') && !t.is('}'))
                    .any(|t| t.word() == Some("pub"));
                let end = (n..tokens.len()).find(|at| tokens[*at].is(';')).unwrap_or(tokens.len());
                let mut names = Vec::new();
                use_tree(&tokens[n + 1..end], &mut Vec::new(), &mut names);
                for (path, name) in names {
                    if let Some(path) = from_root(&path, &here, known) {
                        found.push(Mention { path, reexported: public.then_some(name) });
                    }
                }
                n = end;
            }
            Token::Word(_) if tokens.get(n + 1) == Some(&Token::Path) && (n == 0 || tokens[n - 1] != Token::Path) => {
                let mut path = Vec::new();
                while let Some(Token::Word(word)) = tokens.get(n) {
                    path.push(word.clone());
                    if tokens.get(n + 1) != Some(&Token::Path) {
                        break;
                    }
                    n += 2;
                }
                if let Some(path) = from_root(&path, &here, known) {
                    found.push(Mention { path, reexported: None });
                }
            }
            _ => {}
        }
        n += 1;
    }
    found
}

/// Each path of a use tree, with the name it gets.
fn use_tree(tokens: &[Token], prefix: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
    let (mut n, before) = (0, prefix.len());
    let mut alias = None;
    while n < tokens.len() {
        match &tokens[n] {
            Token::Mark('{') => {
                let end = closing(tokens, n);
                let mut from = n + 1;
                while from < end - 1 {
                    let mut to = from;
                    while to < end - 1 && !tokens[to].is(',') {
                        to = if tokens[to].is('{') { closing(tokens, to) } else { to + 1 };
                    }
                    use_tree(&tokens[from..to], prefix, found);
                    from = to + 1;
                }
                prefix.truncate(before);
                return;
            }
            Token::Word(word) if word == "as" => {
                alias = tokens.get(n + 1).and_then(Token::word).map(str::to_owned);
                break;
            }
            Token::Word(word) => prefix.push(word.clone()),
            Token::Mark('*') => prefix.push("*".to_owned()),
            _ => {}
        }
        n += 1;
    }
    let mut path = prefix.clone();
    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        path.pop();
    }
    if let Some(last) = path.last().cloned() {
        found.push((path, alias.unwrap_or(last)));
    }
    prefix.truncate(before);
}

/// The path from the root of the crate, if it begins within the crate.
fn from_root(path: &[String], here: &[String], children: &BTreeSet<String>) -> Option<Vec<String>> {
    let mut base = here.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (base, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|first| first == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        first if children.contains(first) => {}
        _ => return None,
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// The modules of a crate that are files, and what each of them names.
struct Crate {
    files: BTreeMap<Vec<String>, Vec<Mention>>,
}

/// Modules that use each other.
struct Circle {
    modules: Vec<String>,
    text: String,
}

impl Crate {
    /// Reads all files below `src`.
    fn read(src: &Path) -> Self {
        let mut texts = BTreeMap::new();
        collect(src, &mut Vec::new(), &mut texts);
        Self::of(texts)
    }

    /// From texts by module; the root is the empty path.
    fn of(texts: BTreeMap<Vec<String>, String>) -> Self {
        let mut tests: Vec<Vec<String>> = Vec::new();
        let mut all = BTreeMap::new();
        for (module, text) in texts {
            let (kept, test_files) = without_tests(&tokens(&text));
            tests.extend(test_files.into_iter().map(|name| [module.clone(), vec![name]].concat()));
            all.insert(module, kept);
        }
        all.retain(|module: &Vec<String>, _| !tests.iter().any(|test| module.starts_with(test)));
        let modules: Vec<Vec<String>> = all.keys().cloned().collect();
        let files = all
            .into_iter()
            .map(|(module, tokens)| {
                let below = modules.iter().filter(|m| m.len() == module.len() + 1 && m.starts_with(&module));
                let children = below.filter_map(|m| m.last().cloned()).collect();
                let found = mentions(&tokens, &module, &children);
                (module, found)
            })
            .collect();
        Self { files }
    }

    /// The file a path leads to, re-exports of a module's own children followed.
    fn file_of(&self, path: &[String]) -> Vec<String> {
        let mut path = path.to_vec();
        for _ in 0..16 {
            let length = (0..=path.len()).rev().find(|n| self.files.contains_key(&path[..*n])).unwrap_or(0);
            let (module, rest) = (path[..length].to_vec(), path[length..].to_vec());
            let Some(name) = rest.first() else { return module };
            let below = |mention: &&Mention| mention.path.len() > module.len() && mention.path.starts_with(&module);
            let aliases = self.files.get(&module).into_iter().flatten().filter(below);
            let by_name = aliases.clone().find(|m| m.reexported.as_ref() == Some(name));
            let glob = aliases.clone().find(|m| m.reexported.as_deref() == Some("*"));
            path = match (by_name, glob) {
                (Some(alias), _) => alias.path.iter().chain(&rest[1..]).cloned().collect(),
                (None, Some(glob)) => glob.path[..glob.path.len() - 1].iter().chain(&rest).cloned().collect(),
                (None, None) => return module,
            };
        }
        path
    }

    /// The arrows between the modules directly below `level` (and its own file), each with an example.
    fn arrows(&self, level: &[String]) -> BTreeMap<(String, String), String> {
        let node = |file: &[String]| {
            file.starts_with(level).then(|| file.get(level.len()).cloned().unwrap_or_else(|| "mod.rs".to_owned()))
        };
        let mut arrows = BTreeMap::new();
        for (file, mentions) in &self.files {
            for mention in mentions.iter().filter(|mention| mention.reexported.is_none()) {
                let used = self.file_of(&mention.path);
                if let (Some(from), Some(to)) = (node(file), node(&used))
                    && from != to
                {
                    let example = || format!("{} uses {}", name(file), mention.path.join("::"));
                    arrows.entry((from, to)).or_insert_with(example);
                }
            }
        }
        arrows
    }

    /// The modules that have modules below them, the root first.
    fn folders(&self) -> Vec<Vec<String>> {
        let parents = self.files.keys().filter_map(|file| file.split_last()).map(|(_, parent)| parent.to_vec());
        parents.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The circles among the modules directly below `level`.
    fn circles(&self, level: &[String]) -> Vec<Circle> {
        let arrows = self.arrows(level);
        let nodes: BTreeSet<&String> = arrows.keys().flat_map(|(from, to)| [from, to]).collect();
        let reach = |from: &String| {
            let (mut seen, mut waiting) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(next) = waiting.pop() {
                for (_, to) in arrows.keys().filter(|(from, _)| *from == next) {
                    if seen.insert(to.clone()) {
                        waiting.push(to.clone());
                    }
                }
            }
            seen
        };
        let reached: BTreeMap<&String, BTreeSet<String>> = nodes.iter().map(|node| (*node, reach(node))).collect();
        let (mut circles, mut done) = (Vec::new(), BTreeSet::new());
        for node in nodes {
            let circle: Vec<String> =
                reached[node].iter().filter(|other| reached[*other].contains(node)).cloned().collect();
            if circle.is_empty() || !done.insert(circle.clone()) {
                continue;
            }
            let mut text = format!("{} [{}]", level.join("::"), circle.join(", "));
            for ((from, to), example) in &arrows {
                if circle.contains(from) && circle.contains(to) {
                    let _ = write!(text, "\n    {from} -> {to}: {example}");
                }
            }
            circles.push(Circle { modules: circle, text });
        }
        circles
    }

    /// Arrows between top-level modules that `layers` does not allow, as text.
    fn against(&self, layers: &[(&str, &[&str])]) -> String {
        let mut report = String::new();
        for ((from, to), example) in self.arrows(&[]).iter().filter(|((from, _), _)| from != "mod.rs" && from != "main")
        {
            match layers.iter().find(|(layer, _)| layer == from) {
                None => {
                    let _ = write!(report, "\n{from} is not in LAYERS: say there what it may use");
                }
                Some((_, allowed)) if allowed.contains(&to.as_str()) => {}
                Some(_) => {
                    let _ = write!(report, "\n{from} -> {to}: {example}");
                }
            }
        }
        report
    }
}

fn name(module: &[String]) -> String {
    if module.is_empty() { "lib.rs".to_owned() } else { module.join("::") }
}

/// The texts of all Rust files below `folder`, by module. A binary's `main.rs` beside a `lib.rs` is the module `main`.
fn collect(folder: &Path, module: &mut Vec<String>, texts: &mut BTreeMap<Vec<String>, String>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("read {}: {error}", folder.display())) {
        let path = entry.expect("a folder's entry").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name in UTF-8").to_owned();
        let is_root = matches!(stem.as_str(), "lib" | "mod");
        if !is_root {
            module.push(stem);
        }
        if path.is_dir() {
            collect(&path, module, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.insert(module.clone(), read(&path));
        }
        if !is_root {
            module.pop();
        }
    }
}

/// The rules themselves: each must find what it is for.
mod rules {
    use super::*;

    fn module(path: &str) -> Vec<String> {
        path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn krate(files: &[(&str, &str)]) -> Crate {
        Crate::of(files.iter().map(|(path, text)| (module(path), (*text).to_owned())).collect())
    }

    fn circles(files: &[(&str, &str)], level: &str) -> Vec<Vec<String>> {
        krate(files).circles(&module(level)).into_iter().map(|circle| circle.modules).collect()
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        let app = ("app", "use crate::{store::{self, Tx}, wake::Wakes};");
        assert_eq!(circles(&[app, ("store", "use crate::wake::Wakes;"), ("wake", "")], ""), [] as [Vec<String>; 0]);
        for back in [
            "use crate::app::etag;",
            "use super::{wake::Wakes, app as application};",
            "fn tag() -> String { crate::app::etag(1) }",
            "mod inner { fn tag() -> String { super::super::app::etag(1) } }",
            "const NAME: &str = \"a \\\" quote\"; use crate::{wake, app::{etag}};",
        ] {
            assert_eq!(circles(&[app, ("store", back), ("wake", "")], ""), [["app", "store"]], "{back}");
        }
    }

    #[test]
    fn comments_strings_and_tests_are_no_arrows() {
        let app = ("app", "use crate::store::Tx;");
        for silent in [
            "//! As [`crate::app::etag`] says.\n/* use crate::app::A; /* crate::app::B */ */",
            "const A: &str = \"crate::app::etag\"; const B: &str = r#\"use \"crate::app\";\"#; const C: char = '\"';",
            "#[cfg(test)]\nmod tests { use crate::app::etag; fn f() { { } } }",
            "#[cfg(test)]\n#[expect(dead_code)]\nuse crate::app::{etag, at};\nuse std::fmt;",
            "#[cfg(test)] mod checks;",
        ] {
            let checks = ("store::checks", "use crate::app::etag;");
            let files = if silent.contains("checks") {
                vec![app, ("store", silent), checks]
            } else {
                vec![app, ("store", silent)]
            };
            assert_eq!(circles(&files, ""), [] as [Vec<String>; 0], "{silent}");
        }
    }

    #[test]
    fn a_re_exported_name_belongs_to_the_child_that_has_it() {
        let folder = ("app", "pub mod access; pub mod images; pub use self::access::Caller; pub struct App;");
        let images = ("app::images", "use super::{App, Caller};");
        assert_eq!(circles(&[folder, ("app::access", "use super::App;"), images], "app"), [] as [Vec<String>; 0]);
        let back = ("app::access", "use super::images::find;");
        assert_eq!(circles(&[folder, back, images], "app"), [["access", "images"]]);
        let knows_child = ("app", "pub mod access; pub struct App { who: access::Caller }");
        assert_eq!(circles(&[knows_child, ("app::access", "use super::App;")], "app"), [["access", "mod.rs"]]);
    }

    #[test]
    fn an_arrow_against_the_layers_is_found() {
        let layers: &[(&str, &[&str])] = &[("http", &["app"]), ("app", &[])];
        let app = ("app", "");
        assert_eq!(krate(&[app, ("http", "use crate::app::App;"), ("", "use crate::http;")]).against(layers), "");
        let report = krate(&[("app", "use crate::http::Json;"), ("http", "")]).against(layers);
        assert!(report.contains("app -> http: app uses http::Json"), "{report}");
        let report = krate(&[app, ("helpers", "use crate::app::App;")]).against(layers);
        assert!(report.contains("helpers is not in LAYERS"), "{report}");
    }

    #[test]
    fn a_dependency_against_the_arrows_is_found() {
        let manifest = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n{rest}");
        let crates = |api: &str, cli: &str| {
            vec![
                ("control-plane/api".to_owned(), manifest("words", api)),
                ("storage-core/pool".to_owned(), manifest("pool", "")),
                ("control-plane/cli".to_owned(), manifest("cli", cli)),
            ]
        };
        assert_eq!(crate_arrows(&crates("", "[dependencies]\nwords.workspace = true")), "");
        let report = crate_arrows(&crates(
            "[dependencies]\npool = { path = \"x\" }",
            "[dev-dependencies]\npool.workspace = true",
        ));
        assert!(report.contains("control-plane/api depends on storage-core/pool"), "{report}");
        assert!(report.contains("control-plane/cli depends on storage-core/pool"), "{report}");
        let stranger = crate_arrows(&[("control-plane/helpers".to_owned(), manifest("helpers", ""))]);
        assert!(stranger.contains("not in CRATES"), "{stranger}");
    }
}
