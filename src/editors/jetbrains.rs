//! `config-jetbrains`: playgrounds in the ssh configurations of JetBrains' products, and out of them again.
//!
//! Each product keeps its own in `<config>/JetBrains/<Product><version>/options/sshConfigs.xml`. It reads them when it
//! starts and writes them when it ends, so they are changed only while it does not run. All options of an entry come
//! from the ssh configuration, which `config-ssh` writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    editors::{
        flatpak,
        settings_file::{Plan, Written},
    },
    error::{Error, Kind, Result},
    files,
    settings::Folders,
    ssh_config::entries::Entry,
};
use running::Process;
use xml::SshConfigs;

mod running;
pub mod xml;

/// The configurations file, relative to a product's folder.
const FILE: &str = "options/sshConfigs.xml";
/// The names of folders that are no products with SSH connections of their own.
const NOT_PRODUCTS: [&str; 1] = ["JetBrainsClient"];

/// The user's wishes for `config-jetbrains`.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The only product to change: `Gateway`, `IntelliJIdea2025.1`; all when none is named.
    pub product: Option<String>,
    /// Take everything of ours out.
    pub remove: bool,
    /// Only show what would change.
    pub dry_run: bool,
}

/// A product of JetBrains' that has been started at least once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Product {
    /// Its configuration folder.
    pub folder: PathBuf,
    /// `IntelliJIdea`, `JetBrainsGateway`.
    pub name: String,
    /// `2025.1`.
    pub version: String,
}

impl Product {
    /// The product with this configuration folder; `None` for any other folder.
    fn of(folder: PathBuf) -> Option<Product> {
        let name = folder.file_name()?.to_str()?;
        let (name, version) = name.split_at(name.find(|c: char| c.is_ascii_digit())?);
        let is_version = version.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        if name.is_empty() || !is_version || NOT_PRODUCTS.contains(&name) || !folder.join("options").is_dir() {
            return None;
        }
        Some(Product { name: name.to_owned(), version: version.to_owned(), folder })
    }

    /// The name of its folder: name and version.
    pub fn selector(&self) -> String {
        format!("{}{}", self.name, self.version)
    }

    /// The file of its ssh configurations.
    pub fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Reports whether a person who says `name` means this product.
    fn is_called(&self, name: &str) -> bool {
        let plain = |name: &str| {
            let name: String = name.to_ascii_lowercase().split([' ', '-']).collect();
            name.strip_prefix("jetbrains").map_or(name.clone(), str::to_owned)
        };
        plain(name) == plain(&self.name) || plain(name) == plain(&self.selector())
    }

    /// # Errors
    /// [`Kind::Refused`] when it runs, because it would overwrite our changes.
    fn must_not_run(&self) -> Result<()> {
        let Some(Process { pid, name }) = running::process(&self.folder, &self.selector()) else { return Ok(()) };
        Err(Error::new(Kind::Refused, format!("{} is running: process {pid}, {name}", self.selector())).with_hint(
            format!(
                "close it, or choose another one with --product; if that process does not belong to it, delete {}",
                running::lock(&self.folder).display()
            ),
        ))
    }
}

/// The folders of the products' configurations: below `$XDG_CONFIG_HOME` or `~/.config`,
/// `~/Library/Application Support`, `%APPDATA%`; Android Studio's is its maker's. A Flatpak has folders of its own. The
/// first is there even if nothing is in it.
fn bases() -> Vec<PathBuf> {
    const MAKERS: [&str; 2] = ["JetBrains", "Google"];
    let Some(config) = dirs::config_dir() else { return Vec::new() };
    let of_home = |home: PathBuf| flatpak::configurations(&home, &["com.jetbrains.", "com.google.AndroidStudio"]);
    let flatpaks = dirs::home_dir().map(of_home).unwrap_or_default();
    let configs = std::iter::once(config).chain(flatpaks);
    configs.flat_map(|config| MAKERS.map(|maker| config.join(maker))).collect()
}

/// The products below `base`, in the order of their names. There are none when the folder does not exist.
///
/// # Errors
/// [`Kind::File`] when it cannot be read.
pub fn products(base: &Path) -> Result<Vec<Product>> {
    let failed = |e: io::Error| Error::file("read", base, &e);
    let folders = match fs::read_dir(base) {
        Ok(folders) => folders,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let folders = folders.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let mut products: Vec<Product> = folders.iter().filter_map(|folder| Product::of(folder.path())).collect();
    products.sort();
    Ok(products)
}

fn all() -> Result<Vec<Product>> {
    let mut all = Vec::new();
    for base in bases() {
        all.extend(products(&base)?);
    }
    Ok(all)
}

/// The products by that name, or all of them.
fn chosen(name: Option<&str>) -> Result<Vec<Product>> {
    let base =
        bases().into_iter().next().ok_or_else(|| Error::new(Kind::File, "cannot find your configuration folder"))?;
    let all = all()?;
    let Some(name) = name else {
        if all.is_empty() {
            return Err(Error::new(Kind::NotFound, format!("there is no JetBrains product in {}", base.display()))
                .with_hint("start the product once, so that it creates its folder, and close it"));
        }
        return Ok(all);
    };
    let names: Vec<String> = all.iter().map(Product::selector).collect();
    let chosen: Vec<Product> = all.into_iter().filter(|product| product.is_called(name)).collect();
    if chosen.is_empty() {
        let there = if names.is_empty() {
            "start a product once, so that it creates its folder, and close it".into()
        } else {
            format!("use one of: {}", names.join(", "))
        };
        return Err(
            Error::new(Kind::NotFound, format!("no JetBrains product {name} in {}", base.display())).with_hint(there)
        );
    }
    Ok(chosen)
}

/// The files that hold our hosts. A file that cannot be read counts as one without.
pub fn written() -> Vec<PathBuf> {
    let products = all().unwrap_or_default();
    let has_hosts = |file: &PathBuf| {
        let hosts = files::read_text(file).and_then(|text| xml::hosts(&text.unwrap_or_default()));
        hosts.is_ok_and(|hosts| !hosts.is_empty())
    };
    products.iter().map(Product::file).filter(has_hosts).collect()
}

/// A product as `--list` shows it.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its name and version.
    pub product: String,
    /// The file of its ssh configurations.
    pub file: PathBuf,
    /// The number of hosts in its file that are ours; `None` when the file cannot be read.
    pub playgrounds: Option<usize>,
    /// The reason why the file cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The product's process, while it runs.
    pub process: Option<u32>,
}

impl Listed {
    fn new(product: &Product) -> Listed {
        let file = product.file();
        let hosts = files::read_text(&file).and_then(|text| xml::hosts(&text.unwrap_or_default()));
        let process = running::process(&product.folder, &product.selector()).map(|process| process.pid);
        let (playgrounds, error) = match hosts {
            Ok(hosts) => (Some(hosts.len()), None),
            Err(e) => (None, Some(e.message().to_owned())),
        };
        Listed { product: product.selector(), file, playgrounds, error, process }
    }
}

/// Lists the products.
///
/// # Errors
/// Fails when there are none, or a folder cannot be read.
pub fn list(product: Option<&str>) -> Result<Vec<Listed>> {
    Ok(chosen(product)?.iter().map(Listed::new).collect())
}

/// Changes the files of the products that `request` names, if `agree` returns true for the plans. All products are
/// checked before the first is changed. Returns the files that were written.
///
/// # Errors
/// [`Kind::Refused`] when a product runs, [`Kind::File`] when a file is damaged or cannot be written; as `agree`.
pub async fn apply(
    folders: &Folders,
    request: &Request,
    entries: &[Entry],
    agree: impl AsyncFnOnce(&[&Plan]) -> Result<bool>,
) -> Result<Vec<Written>> {
    let products = chosen(request.product.as_deref())?;
    let backups = folders.backups();
    let record = record_path(folders);
    let mut names = Names::load(&record)?;
    let format = SshConfigs { names: names.0.clone() };
    let mut plans = Vec::new();
    for product in &products {
        let plan = if request.remove {
            Plan::remove(&product.file(), &format, &backups)?
        } else {
            Plan::set(&product.file(), &format, entries)?
        };
        match (plan.changes(), request.dry_run) {
            (true, false) => product.must_not_run()?,
            (false, false) => plan.sweep(),
            (_, true) => {}
        }
        plans.push((product, plan));
    }
    let mut written = Vec::new();
    if agree(&plans.iter().map(|(_, plan)| plan).collect::<Vec<_>>()).await? {
        // On record before they are in a file: a name that is not counts as the user's.
        names.add(entries).then(|| names.save(&record)).transpose()?;
        for (product, plan) in plans.iter().filter(|(_, plan)| plan.changes()) {
            // The product may have been started while the question was open.
            product.must_not_run()?;
            let backup = plan.commit(request.remove, &backups)?;
            written.push(Written { file: plan.path().to_owned(), backup });
        }
    }
    Ok(written)
}

/// The names that we have given to hosts in the products.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Names(BTreeMap<String, BTreeSet<String>>);

/// The file of the record of those names.
pub fn record_path(folders: &Folders) -> PathBuf {
    folders.root.join("jetbrains.json")
}

impl Names {
    fn load(path: &Path) -> Result<Names> {
        let Some(text) = files::read_text(path)? else { return Ok(Names::default()) };
        serde_json::from_str(&text).map_err(|e| {
            Error::new(Kind::File, format!("{} is damaged: {e}", path.display()))
                .with_hint("delete it; names in JetBrains' products then count as yours")
        })
    }

    /// Adds the aliases of entries. Returns true if one is new.
    fn add(&mut self, entries: &[Entry]) -> bool {
        let aliases = entries.iter().filter_map(|entry| Some((&entry.host, entry.alias.as_ref()?)));
        aliases.fold(false, |new, (host, alias)| self.0.entry(host.clone()).or_default().insert(alias.clone()) | new)
    }

    fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        files::write_private(path, &text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Product, products};

    /// The three systems' folders differ in nothing but their place.
    #[test]
    fn finds_every_product_on_every_system() {
        for base in [".config/JetBrains", "Library/Application Support/JetBrains", "AppData/Roaming/JetBrains"] {
            let home = tempfile::tempdir().unwrap();
            let base = home.path().join(base);
            assert_eq!(products(&base).unwrap(), []);
            for folder in [
                "IntelliJIdea2024.3/options",
                "IntelliJIdea2025.1/options",
                "JetBrainsGateway2025.1/options",
                "PyCharmCE2025.1/options",
                "JetBrainsClient2025.1/options",
                "Toolbox",
                "acp-agents/options",
                "consentOptions",
                "GoLand2025.1",
                "GoLand2025.1-backup/options",
                "2025.1/options",
            ] {
                fs::create_dir_all(base.join(folder)).unwrap();
            }
            fs::write(base.join("bl2024.3"), "").unwrap();
            let found: Vec<String> = products(&base).unwrap().iter().map(Product::selector).collect();
            assert_eq!(
                found,
                ["IntelliJIdea2024.3", "IntelliJIdea2025.1", "JetBrainsGateway2025.1", "PyCharmCE2025.1"]
            );
        }
    }

    #[test]
    fn a_product_goes_by_several_names() {
        let product = Product { folder: "x".into(), name: "JetBrainsGateway".into(), version: "2025.1".into() };
        for name in ["Gateway", "gateway", "JetBrains Gateway", "jetbrainsgateway", "Gateway2025.1", "gateway-2025.1"] {
            assert!(product.is_called(name), "{name}");
        }
        for name in ["", "Gate", "2025.1", "IntelliJIdea", "Gateway2025.2"] {
            assert!(!product.is_called(name), "{name}");
        }
    }
}
