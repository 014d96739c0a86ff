//! The code is built as ARCHITECTURE.md says: no two modules of a package need each other, and no file of the
//! core is longer than one can read at one sitting.
//!
//! A module may use what those above it define, for it is a part of them. Whatever else it names is an edge to the
//! module that defines it, however many doors it is shown at on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Meta, UseTree};

/// The longest a file of the core may be.
const LINES_MAX: usize = 500;

/// A module, or an item in one, as it is written: names from the package's root, or from where it stands.
type Name = Vec<String>;

#[derive(Default)]
struct Module {
    /// What is defined in it.
    defined: BTreeSet<String>,
    /// What is brought into it, and under which name.
    brought: BTreeMap<String, Name>,
    /// Where all names are brought from.
    globs: Vec<Name>,
    /// Whatever it names.
    named: Vec<Name>,
}

impl Module {
    fn bring(&mut self, tree: &UseTree, from: &Name) {
        let with = |name: String| from.iter().cloned().chain([name]).collect::<Name>();
        match tree {
            UseTree::Path(path) => self.bring(&path.tree, &with(path.ident.to_string())),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.bring(tree, from)),
            UseTree::Glob(_) => self.globs.push(from.clone()),
            UseTree::Name(name) if name.ident == "self" => {
                let last = from.last().cloned().unwrap_or_default();
                self.brought.insert(last, from.clone());
                self.named.push(from.clone());
            }
            UseTree::Name(name) => {
                self.brought.insert(name.ident.to_string(), with(name.ident.to_string()));
                self.named.push(with(name.ident.to_string()));
            }
            UseTree::Rename(rename) => {
                self.brought.insert(rename.rename.to_string(), with(rename.ident.to_string()));
                self.named.push(with(rename.ident.to_string()));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_of_tests(attributes(item)) {
            return;
        }
        let name = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            _ => None,
        };
        self.defined.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.bring(&item.tree, &Name::new());
    }

    // It is read by itself.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let name: Name = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if name.len() > 1 && ["crate", "self", "super"].contains(&name[0].as_str()) {
            self.named.push(name);
        }
        visit::visit_path(self, path);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

/// The modules of one package.
#[derive(Default)]
struct Package(BTreeMap<Name, Module>);

impl Package {
    fn read(root: &Path) -> Self {
        let mut package = Self::default();
        let folder = root.parent().expect("a folder").to_owned();
        package.take_in(Name::new(), &items(root), &folder);
        package
    }

    /// Takes in a module, whose own modules are in this folder.
    fn take_in(&mut self, name: Name, items: &[Item], folder: &Path) {
        let mut module = Module::default();
        items.iter().for_each(|item| module.visit_item(item));
        self.0.insert(name.clone(), module);
        for item in items {
            let Item::Mod(inner) = item else { continue };
            if is_of_tests(&inner.attrs) {
                continue;
            }
            let ident = inner.ident.to_string();
            let below = folder.join(&ident);
            let name: Name = name.iter().cloned().chain([ident]).collect();
            match &inner.content {
                Some((_, items)) => self.take_in(name, items, &below),
                None => self.take_in(name, &self::items(&below.with_extension("rs")), &below),
            }
        }
    }

    /// The module that defines what is named so in module `at`. `None` for what is of another package.
    fn resolve(&self, at: &Name, named: &Name, seen: &mut BTreeSet<(Name, Name)>) -> Option<Name> {
        if !seen.insert((at.clone(), named.clone())) {
            return None;
        }
        let mut module = at.clone();
        let mut parts = named.as_slice();
        match parts.first()?.as_str() {
            "crate" => (module, parts) = (Name::new(), &parts[1..]),
            "self" => parts = &parts[1..],
            "super" => {
                while let Some(("super", rest)) = parts.split_first().map(|(f, r)| (f.as_str(), r))
                {
                    (parts, _) = (rest, module.pop());
                }
            }
            first => {
                let child: Name = module.iter().cloned().chain([first.to_owned()]).collect();
                self.0.get(&child)?;
            }
        }
        for part in parts {
            let child: Name = module.iter().cloned().chain([part.clone()]).collect();
            if self.0.contains_key(&child) {
                module = child;
                continue;
            }
            let here = self.0.get(&module)?;
            if here.defined.contains(part) {
                return Some(module);
            }
            if let Some(from) = here.brought.get(part) {
                return self.resolve(&module, from, seen);
            }
            let of_glob = here.globs.iter().find_map(|from| {
                let name: Name = from.iter().cloned().chain([part.clone()]).collect();
                self.resolve(&module, &name, seen)
            });
            return of_glob.or(Some(module));
        }
        Some(module)
    }

    /// Which modules each one needs.
    fn needs(&self) -> BTreeMap<&Name, BTreeSet<Name>> {
        let needed = |(at, module): (&'_ Name, &Module)| -> BTreeSet<Name> {
            let all = module.named.iter();
            let all = all.filter_map(|named| self.resolve(at, named, &mut BTreeSet::new()));
            all.filter(|module| !at.starts_with(module)).collect()
        };
        self.0.iter().map(|(at, module)| (at, needed((at, module)))).collect()
    }

    /// The modules that need themselves by way of others, each with those.
    fn cycles(&self) -> Vec<String> {
        let needs = self.needs();
        let reached = |from: &Name| {
            let mut reached: BTreeSet<&Name> = BTreeSet::new();
            let mut open: Vec<&Name> = needs.get(from).into_iter().flatten().collect();
            while let Some(next) = open.pop() {
                if reached.insert(next) {
                    open.extend(needs.get(next).into_iter().flatten());
                }
            }
            reached
        };
        let all: BTreeMap<&Name, BTreeSet<&Name>> =
            needs.keys().map(|at| (*at, reached(at))).collect();
        let mut found = Vec::new();
        for (at, direct) in &needs {
            for other in
                direct.iter().filter(|other| all.get(other).is_some_and(|all| all.contains(at)))
            {
                found.push(format!("{} needs {}", at.join("::"), other.join("::")));
            }
        }
        found
    }
}

fn items(file: &Path) -> Vec<Item> {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).items
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn no_two_modules_of_a_package_need_each_other() {
    let roots = [
        "protocol/src/lib.rs",
        "net/src/lib.rs",
        "replica/src/lib.rs",
        "client/src/lib.rs",
        "app-kv/src/lib.rs",
        "processes/src/lib.rs",
        "fault-injection/src/lib.rs",
        "fault-injection/chaos/src/lib.rs",
        "benches/compare/src/main.rs",
        "src/main.rs",
    ];
    let mut found = Vec::new();
    for of in roots {
        let package = Package::read(&root().join(of));
        let edges: usize = package.needs().values().map(BTreeSet::len).sum();
        assert!(edges > 2, "{of}: what modules need is seen");
        found.extend(package.cycles().into_iter().map(|cycle| format!("{of}: {cycle}")));
    }
    assert!(found.is_empty(), "these need each other:\n{}", found.join("\n"));
}

#[test]
fn a_cycle_is_seen_through_a_door() {
    let module = |name: &str, text: &str, package: &mut Package| {
        let items = syn::parse_file(text).expect("Rust").items;
        package.take_in(name.split("::").map(str::to_owned).collect(), &items, Path::new("."));
    };
    let mut package = Package::default();
    package.take_in(Name::new(), &[], Path::new("."));
    module("room", "pub(super) use self::inner::Thing;", &mut package);
    module("room::inner", "use crate::other::Other; pub struct Thing(Other);", &mut package);
    module("other", "pub struct Other;", &mut package);
    assert_eq!(package.cycles(), [""; 0]);
    module("other", "pub struct Other; fn f(_: crate::room::Thing) {}", &mut package);
    assert_eq!(package.cycles(), ["other needs room::inner", "room::inner needs other"]);
}

#[test]
fn every_file_of_the_core_can_be_read_at_a_sitting() {
    let mut open =
        vec![root().join("protocol/src/replica.rs"), root().join("protocol/src/replica")];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(path).expect("a folder");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
            continue;
        }
        seen += 1;
        let lines = fs::read_to_string(&path).expect("text").lines().count();
        let is_of_tests = path.file_name().is_some_and(|name| name == "tests.rs");
        assert!(is_of_tests || lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
    assert!(seen > 40, "the core is there");
}

#[test]
fn examples_name_nothing_but_the_crates_that_users_have() {
    let folder = root().join("examples/src/bin");
    let mut seen = 0;
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("text");
        // The counter is an application of its own, with its client.
        let also = if path.ends_with("counter.rs") { "elea_examples" } else { "elea_kv" };
        for of in text.split("elea_").skip(1) {
            let named = format!("elea_{of}");
            let is_public = named.starts_with("elea_client") || named.starts_with(also);
            assert!(is_public, "{}: {}", path.display(), &named[..named.len().min(30)]);
        }
        assert!(text.lines().count() < 100, "{} fits a page", path.display());
        seen += 1;
    }
    assert!(seen > 3, "the examples are there");
    let counter = fs::read_to_string(root().join("examples/src/counter.rs")).expect("text");
    assert!(counter.lines().count() < 100, "so does an application");
    assert!(counter.split("elea_").skip(1).all(|of| of.starts_with("protocol::")));
}
