//! One run of the program: its folders, its settings, and the platform that it uses.

use std::path::PathBuf;

use crate::{
    error::{Error, Result},
    files,
    labs::{Labs, account::Account, net::Dialer},
    platform::Platform,
    records::{
        self,
        aliases::Aliases,
        memory::Memory,
        seeds::Seeds,
        tunnels::{Slot, TunnelCache},
    },
    settings::{AliasSource, Folders, KeepPolicy, ResumePolicy, Settings, Setup, WakePolicy},
    ssh::{
        identity::{self, Identity},
        known_hosts::KnownHosts,
    },
    ssh_config::taken,
};

/// The context of one run of the program.
pub struct App {
    /// The paths of our files.
    pub folders: Folders,
    /// The user's settings.
    pub settings: Settings,
    /// The platform in use.
    pub platform: Platform,
}

impl App {
    /// Finds the folders and reads the settings. `root` replaces the default folder of our files. Also returns the keys
    /// in the settings that are unknown, which are no error if the caller is `lenient`.
    ///
    /// # Errors
    /// Fails when there is no home folder, or the settings are invalid.
    pub fn load(platform: Platform, root: Option<PathBuf>, lenient: bool) -> Result<(App, Vec<String>)> {
        let mut folders = Folders::find()?;
        if let Some(root) = root {
            folders.root = root;
        }
        // Absolute, because the embedded platform and ssh run in other folders.
        folders.root = std::path::absolute(&folders.root).map_err(|e| Error::file("find", &folders.root, &e))?;
        let (mut settings, unknown) = Settings::read(&folders.settings, lenient)?;
        if Folders::are_settings_moved() {
            settings.forget_setup();
        }
        let app = App { folders, settings, platform };
        app.sweep();
        Ok((app, unknown))
    }

    /// Deletes incomplete files of killed runs in all folders that this program writes to, except the embedded
    /// platform's.
    fn sweep(&self) {
        let root = &self.folders.root;
        let account = self.folders.account();
        files::sweep(root);
        files::sweep(account.parent().unwrap_or(root));
        files::sweep(&self.folders.kube());
        files::sweep(&self.folders.backups());
        records::folders(&self.folders).iter().for_each(|(folder, _)| files::sweep(folder));
    }

    /// Returns a client of the platform. Starts the embedded platform if it is not running.
    ///
    /// # Errors
    /// Fails when the account's file is damaged, or the embedded platform does not start.
    pub async fn labs(&self) -> Result<Labs> {
        let labs = self.client()?;
        self.platform_up(&labs).await?;
        let aliases = self.aliases();
        Ok(labs.called(move |label| aliases.play(label).map(str::to_owned)))
    }

    /// Starts the embedded platform if this client needs it and it is not running.
    ///
    /// # Errors
    /// Fails when the platform does not start.
    #[cfg_attr(not(unix), expect(unused_variables, reason = "the embedded platform is Unix's only"))]
    pub async fn platform_up(&self, labs: &Labs) -> Result<()> {
        match self.platform {
            Platform::Labs => Ok(()),
            #[cfg(unix)]
            Platform::Local => {
                crate::local::ensure(&self.folders).await?;
                labs.expect_running();
                Ok(())
            }
            #[cfg(not(unix))]
            Platform::Local => {
                Err(crate::error::Error::new(crate::error::Kind::Usage, "the embedded platform runs only on Unix")
                    .with_hint("leave out --local, or use it inside WSL"))
            }
        }
    }

    /// Returns a client of the platform, even if the platform is not running. Sends no request yet.
    ///
    /// # Errors
    /// Fails when the account's file is damaged.
    pub fn client(&self) -> Result<Labs> {
        match self.platform {
            Platform::Labs => {
                let file = self.folders.account();
                let labs = Labs::new(Dialer::network(&self.settings), &Account::load(&file)?)?;
                Ok(labs.renewed_from(file))
            }
            Platform::Local => {
                let labs = Labs::embedded(Dialer::socket(self.folders.socket()));
                #[cfg(unix)]
                let labs = {
                    let folders = self.folders.clone();
                    labs.started_by(Box::new(move || {
                        let folders = folders.clone();
                        Box::pin(async move { crate::local::ensure(&folders).await })
                    }))
                };
                Ok(labs)
            }
        }
    }

    /// Returns the store of tunnel sessions of earlier connections.
    pub fn tunnels(&self) -> TunnelCache {
        TunnelCache::below(&self.folders.root)
    }

    /// Returns the store for the session of a connection to `host` as `user`, or `None` as long as there is no key for
    /// it.
    ///
    /// # Errors
    /// Fails when the key cannot be used.
    pub fn tunnel_slot(&self, labs: &Labs, host: &str, user: &str) -> Result<Option<Slot>> {
        let Some(identity) = identity::load(&self.identity_path()?)? else { return Ok(None) };
        Ok(Some(self.tunnels().slot([&labs.account(), labs.api(), &identity.fingerprint(), host, user])))
    }

    /// Returns the key pair for machines. Makes one if there is none.
    ///
    /// # Errors
    /// Fails when the key cannot be read or made.
    pub fn identity(&self) -> Result<Identity> {
        identity::load_or_make(&self.identity_path()?)
    }

    /// Returns the path of that key, which need not exist yet.
    ///
    /// # Errors
    /// Fails when the account's file is damaged.
    pub fn identity_path(&self) -> Result<PathBuf> {
        Ok(match &self.settings.identity {
            Some(path) => match path.strip_prefix("~") {
                Ok(rest) => self.folders.home.join(rest),
                Err(_) => self.folders.home.join(path),
            },
            None => Account::load(&self.folders.account())?.identity_file(&self.folders.home),
        })
    }

    /// Returns the record of the user's wishes about playgrounds.
    pub fn memory(&self) -> Memory {
        Memory::of(&self.folders, self.platform)
    }

    /// Returns the readable names of playgrounds that are in use: none that has become a host of the user's ssh
    /// configuration since it was made, and with `alias: none` only those that were given. A damaged record counts as none
    /// here; the command that refreshes the entries names it.
    pub fn aliases(&self) -> Aliases {
        let mut aliases = Aliases::load(&self.folders, self.platform).unwrap_or_else(|error| {
            log::info!("{}", error.message());
            Aliases::default()
        });
        if aliases.labels().next().is_some() {
            let has_titles = self.settings.alias == AliasSource::Title;
            let taken = taken::in_configuration(&self.folders);
            aliases.retain(|alias| (has_titles || alias.made.is_none()) && taken(&alias.label).is_none());
        }
        aliases
    }

    /// Returns the seeds of the host keys of containers.
    pub fn seeds(&self) -> Seeds {
        Seeds::below(&self.folders.root)
    }

    /// Returns the known host keys of this platform's machines.
    pub fn known_hosts(&self) -> KnownHosts {
        KnownHosts::at(self.folders.known_hosts(self.platform))
    }

    /// Returns the wake policy for a playground that has any of these labels.
    pub fn wake_policy(&self, labels: &[&str]) -> WakePolicy {
        let own = labels.iter().find_map(|label| self.settings.playgrounds.get(*label)?.wake);
        own.unwrap_or(self.settings.wake)
    }

    /// Returns the choice of the sessions that survive, for a playground that has any of these labels.
    pub fn resume_policy(&self, labels: &[&str]) -> ResumePolicy {
        let own = labels.iter().find_map(|label| self.settings.playgrounds.get(*label)?.resume);
        own.unwrap_or(self.settings.resume)
    }

    /// Returns the choice about the end of a playground that has any of these labels.
    pub fn keep_policy(&self, labels: &[&str]) -> KeepPolicy {
        let own = labels.iter().find_map(|label| self.settings.playgrounds.get(*label)?.keep);
        own.unwrap_or(self.settings.keep)
    }

    /// Returns the setup of the machines of a playground that has any of these labels, and true if it is for that
    /// playground alone.
    pub fn setup(&self, labels: &[&str]) -> (&Setup, bool) {
        let own = labels.iter().find_map(|label| self.settings.playgrounds.get(*label)?.setup.as_ref());
        (own.or(self.settings.setup.as_ref()).unwrap_or(&Setup::None), own.is_some())
    }
}
