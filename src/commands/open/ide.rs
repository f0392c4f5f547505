//! The editors that `open` knows: their names, their locations, and the arguments that make each open a machine.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{
    commands::visit::Destination,
    editors::flatpak,
    error::{Error, Kind, Result},
    ui::nearest::nearest,
};

/// The form of an editor's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// VS Code and its derivatives.
    Vscode,
    /// Zed.
    Zed,
    /// JetBrains Gateway, with the product code of the IDE to install on the machine.
    Gateway(Option<&'static str>),
}

/// An editor.
#[derive(Debug)]
pub(crate) struct Ide {
    /// The name on the command line.
    pub name: &'static str,
    /// The name for people.
    pub title: &'static str,
    /// The form of its arguments.
    pub link: Link,
    /// The names of its command, the usual one first.
    commands: &'static [&'static str],
    /// The folders of its settings, relative to the user's configuration folder, and then its Flatpaks' ids. Only VS Code
    /// and its derivatives have one limit for all hosts there.
    settings: Settings,
    /// Install locations for when the command is not in PATH. `~` and `%NAME%` are expanded.
    places: &'static [&'static str],
}

/// The places of an editor's settings.
#[derive(Debug)]
struct Settings {
    /// Names of its data folder, the newest first. An editor that was renamed has more than one.
    folders: &'static [&'static str],
    /// Ids of its Flatpaks.
    flatpaks: &'static [&'static str],
}

/// The settings of an editor that are not read.
const UNREAD: Settings = Settings { folders: &[], flatpaks: &[] };

/// The settings in a folder of one name, without a Flatpak.
const fn native(folders: &'static [&'static str]) -> Settings {
    Settings { folders, flatpaks: &[] }
}

/// Gateway's commands and locations. Gateway opens all of JetBrains' editors.
const GATEWAY: &[&str] = &["gateway", "gateway64", "gateway.sh", "jetbrains-gateway"];
const GATEWAY_PLACES: &[&str] = &[
    "~/.local/share/JetBrains/Toolbox/scripts/gateway",
    "~/.local/share/JetBrains/Toolbox/apps/gateway/bin/gateway",
    "/snap/bin/gateway",
    "/opt/gateway/bin/gateway.sh",
    "~/Library/Application Support/JetBrains/Toolbox/scripts/gateway",
    "/Applications/Gateway.app/Contents/MacOS/gateway",
    "/Applications/JetBrains Gateway.app/Contents/MacOS/gateway",
    "~/Applications/Gateway.app/Contents/MacOS/gateway",
    "%LOCALAPPDATA%/JetBrains/Toolbox/scripts/gateway.cmd",
    "%LOCALAPPDATA%/Programs/Gateway/bin/gateway64.exe",
    "%ProgramFiles%/JetBrains/JetBrains Gateway/bin/gateway64.exe",
];

const fn gateway(name: &'static str, title: &'static str, code: &'static str) -> Ide {
    Ide { name, title, link: Link::Gateway(Some(code)), commands: GATEWAY, settings: UNREAD, places: GATEWAY_PLACES }
}

/// All editors.
pub(crate) const ALL: &[Ide] = &[
    Ide {
        name: "code",
        title: "VS Code",
        link: Link::Vscode,
        commands: &["code", "com.visualstudio.code"],
        settings: Settings { folders: &["Code"], flatpaks: &["com.visualstudio.code"] },
        places: &[
            "/usr/share/code/bin/code",
            "/snap/bin/code",
            "/var/lib/flatpak/exports/bin/com.visualstudio.code",
            "~/.local/share/flatpak/exports/bin/com.visualstudio.code",
            "/Applications/Visual Studio Code.app/Contents/Resources/app/bin/code",
            "~/Applications/Visual Studio Code.app/Contents/Resources/app/bin/code",
            "%LOCALAPPDATA%/Programs/Microsoft VS Code/bin/code.cmd",
            "%ProgramFiles%/Microsoft VS Code/bin/code.cmd",
        ],
    },
    Ide {
        name: "code-insiders",
        title: "VS Code Insiders",
        link: Link::Vscode,
        commands: &["code-insiders"],
        settings: native(&["Code - Insiders"]),
        places: &[
            "/usr/share/code-insiders/bin/code-insiders",
            "/snap/bin/code-insiders",
            "/Applications/Visual Studio Code - Insiders.app/Contents/Resources/app/bin/code",
            "%LOCALAPPDATA%/Programs/Microsoft VS Code Insiders/bin/code-insiders.cmd",
            "%ProgramFiles%/Microsoft VS Code Insiders/bin/code-insiders.cmd",
        ],
    },
    Ide {
        name: "codium",
        title: "VSCodium",
        link: Link::Vscode,
        commands: &["codium", "vscodium", "com.vscodium.codium"],
        settings: Settings { folders: &["VSCodium"], flatpaks: &["com.vscodium.codium"] },
        places: &[
            "/usr/share/codium/bin/codium",
            "/snap/bin/codium",
            "/var/lib/flatpak/exports/bin/com.vscodium.codium",
            "/Applications/VSCodium.app/Contents/Resources/app/bin/codium",
            "%LOCALAPPDATA%/Programs/VSCodium/bin/codium.cmd",
            "%ProgramFiles%/VSCodium/bin/codium.cmd",
        ],
    },
    Ide {
        name: "cursor",
        title: "Cursor",
        link: Link::Vscode,
        commands: &["cursor"],
        settings: native(&["Cursor"]),
        places: &[
            "/usr/share/cursor/bin/cursor",
            "/opt/cursor/bin/cursor",
            "/Applications/Cursor.app/Contents/Resources/app/bin/cursor",
            "%LOCALAPPDATA%/Programs/cursor/resources/app/bin/cursor.cmd",
        ],
    },
    // Windsurf until June 2026 (https://cognition.com/blog/introducing-devin-desktop). `devin` in PATH is another
    // program of theirs, which is no editor.
    Ide {
        name: "devin",
        title: "Devin Desktop",
        link: Link::Vscode,
        commands: &["devin-desktop", "windsurf"],
        settings: native(&["Devin", "Windsurf"]),
        places: &[
            "/usr/share/devin-desktop/bin/devin-desktop",
            "/opt/Devin/bin/devin-desktop",
            "/Applications/Devin.app/Contents/Resources/app/bin/devin-desktop",
            "~/Applications/Devin.app/Contents/Resources/app/bin/devin-desktop",
            "%LOCALAPPDATA%/Programs/Devin/bin/devin-desktop.cmd",
            "/usr/share/windsurf/bin/windsurf",
            "/Applications/Windsurf.app/Contents/Resources/app/bin/windsurf",
            "%LOCALAPPDATA%/Programs/Windsurf/bin/windsurf.cmd",
        ],
    },
    Ide {
        name: "antigravity",
        title: "Antigravity",
        link: Link::Vscode,
        commands: &["antigravity", "antigravity-ide"],
        settings: native(&["Antigravity IDE", "Antigravity"]),
        places: &[
            "/usr/share/antigravity/bin/antigravity",
            "/Applications/Antigravity.app/Contents/Resources/app/bin/antigravity",
            "%LOCALAPPDATA%/Programs/Antigravity/bin/antigravity.cmd",
        ],
    },
    Ide {
        name: "kiro",
        title: "Kiro",
        link: Link::Vscode,
        commands: &["kiro"],
        settings: native(&["Kiro"]),
        places: &[
            "/usr/share/kiro/bin/kiro",
            "/Applications/Kiro.app/Contents/Resources/app/bin/kiro",
            "/Applications/Kiro.app/Contents/Resources/app/bin/code",
            "%LOCALAPPDATA%/Programs/Kiro/bin/kiro.cmd",
        ],
    },
    Ide {
        name: "trae",
        title: "Trae",
        link: Link::Vscode,
        commands: &["trae", "trae-cn"],
        settings: native(&["Trae", "Trae CN"]),
        places: &[
            "/usr/share/trae/bin/trae",
            "/Applications/Trae.app/Contents/Resources/app/bin/trae",
            "/Applications/Trae CN.app/Contents/Resources/app/bin/trae-cn",
            "%LOCALAPPDATA%/Programs/Trae/bin/trae.cmd",
        ],
    },
    Ide {
        name: "zed",
        title: "Zed",
        link: Link::Zed,
        commands: &["zed", "zeditor", "zedit", "zed-editor", "dev.zed.Zed"],
        settings: UNREAD,
        places: &[
            "~/.local/bin/zed",
            "/var/lib/flatpak/exports/bin/dev.zed.Zed",
            "~/.local/share/flatpak/exports/bin/dev.zed.Zed",
            "/Applications/Zed.app/Contents/MacOS/cli",
            "/Applications/Zed Preview.app/Contents/MacOS/cli",
            "%LOCALAPPDATA%/Programs/Zed/bin/zed.exe",
        ],
    },
    Ide {
        name: "gateway",
        title: "JetBrains Gateway",
        link: Link::Gateway(None),
        commands: GATEWAY,
        settings: UNREAD,
        places: GATEWAY_PLACES,
    },
    gateway("idea", "IntelliJ IDEA", "IU"),
    gateway("pycharm", "PyCharm", "PY"),
    gateway("goland", "GoLand", "GO"),
    gateway("webstorm", "WebStorm", "WS"),
    gateway("clion", "CLion", "CL"),
    gateway("rider", "Rider", "RD"),
    gateway("phpstorm", "PhpStorm", "PS"),
    gateway("rubymine", "RubyMine", "RM"),
    gateway("rustrover", "RustRover", "RR"),
];

/// Returns the editor with that name or command.
///
/// # Errors
/// [`Kind::Usage`], with a list of the editors.
pub(crate) fn by_name(name: &str) -> Result<&'static Ide> {
    let found = ALL.iter().find(|ide| ide.name == name).or_else(|| ALL.iter().find(|ide| ide.commands.contains(&name)));
    found.ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|ide| ide.name).collect();
        Error::new(Kind::Usage, format!("`{name}` is not an editor that `open` supports")).with_hint(
            match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`? `labctl-ssh-proxy help open` lists the editors"),
                None => format!("use one of: {}", names.join(", ")),
            },
        )
    })
}

impl Ide {
    /// Finds the installed program.
    ///
    /// # Errors
    /// [`Kind::Program`] when it is not installed.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        let in_path = self.commands.iter().filter_map(|command| which::which(command).ok());
        // Skip the daemon of ZFS, which has the same name as Zed.
        let in_path = in_path.filter(|path| !path.parent().is_some_and(|folder| folder.ends_with("sbin")));
        let in_places = self.places.iter().filter_map(|place| filled_in(place)).filter(|path| path.is_file());
        in_path.chain(in_places).next().ok_or_else(|| {
            let error = Error::new(Kind::Program, format!("{} is not installed", self.needs()));
            error.with_hint(match self.link {
                Link::Vscode => {
                    let command = self.commands[0];
                    format!(
                        "put `{command}` in PATH: in {}, open the Command Palette and run \"Shell Command: Install \
                         '{command}' command in PATH\"",
                        self.title
                    )
                }
                Link::Zed => "put `zed` in PATH: in Zed, run \"Install CLI\"".into(),
                Link::Gateway(_) => {
                    "install JetBrains Gateway, or Toolbox with its shell scripts, and put `gateway` in PATH".into()
                }
            })
        })
    }

    fn needs(&self) -> &str {
        match self.link {
            Link::Gateway(_) => "JetBrains Gateway",
            Link::Vscode | Link::Zed => self.title,
        }
    }

    /// Returns the settings file of a derivative of VS Code: the first one that exists, or the usual one. `config` is the
    /// user's configuration folder, and a Flatpak reads only its own in `home`.
    pub(crate) fn settings_file(&self, home: &Path, config: &Path) -> Option<PathBuf> {
        let Settings { folders, flatpaks } = self.settings;
        let native = std::iter::once(config.to_owned());
        let configs = native.chain(flatpak::configurations(home, flatpaks));
        let in_folders =
            |config: PathBuf| folders.iter().map(move |folder| config.join(folder).join("User/settings.json"));
        let files: Vec<PathBuf> = configs.flat_map(in_folders).collect();
        files.iter().find(|file| file.exists()).or(files.first()).cloned()
    }

    /// Returns the command to type in a shell here, or the usual one if the editor is not installed.
    #[must_use]
    pub(crate) fn program(&self) -> String {
        let Ok(found) = self.find() else { return self.commands[0].into() };
        let name = found.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if which::which(&name).is_ok_and(|first| first == found) { name } else { found.display().to_string() }
    }

    /// Returns the arguments to open `path` on a machine. Without a path, the editor decides.
    #[must_use]
    pub(crate) fn arguments(&self, place: &Destination, path: Option<&str>) -> Vec<String> {
        let (host, user) = (&place.host, &place.user);
        match (self.link, path) {
            (Link::Vscode, path) => {
                // The entries name the default user. Any other user is part of the destination, as for ssh.
                let usual = user == place.usual_user();
                let remote = if usual { format!("ssh-remote+{host}") } else { format!("ssh-remote+{user}@{host}") };
                let Some(path) = path else { return vec!["--new-window".into(), "--remote".into(), remote] };
                let kind = if path.ends_with(".code-workspace") { "--file-uri" } else { "--folder-uri" };
                vec![kind.into(), format!("vscode-remote://{remote}{}", encode(path, b"/"))]
            }
            (Link::Zed, path) => vec![format!("ssh://{user}@{host}{}", encode(path.unwrap_or("/~"), b"/~"))],
            (Link::Gateway(product), path) => {
                let mut link = String::from("jetbrains-gateway://connect#");
                if let Some(path) = path {
                    link += &format!("projectPath={}&", encode(path, b"/"));
                }
                link += &format!("host={host}&port=22&user={}&type=ssh&deploy=true", encode(user, b""));
                if let Some(product) = product {
                    link += &format!("&productCode={product}");
                }
                vec![link]
            }
        }
    }
}

/// Percent-encodes (RFC 3986, 2.1) all characters except the unreserved ones and `kept`.
fn encode(text: &str, kept: &[u8]) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// Expands the home folder and environment variables in `place`. Returns `None` if a variable is not set.
fn filled_in(place: &str) -> Option<PathBuf> {
    if let Some(below) = place.strip_prefix("~/") {
        return Some(dirs::home_dir()?.join(below));
    }
    if let Some((variable, below)) = place.strip_prefix('%').and_then(|rest| rest.split_once("%/")) {
        return Some(Path::new(&env::var_os(variable)?).join(below));
    }
    Some(place.into())
}

#[cfg(test)]
mod tests {
    use super::{ALL, by_name};
    use crate::{
        commands::visit::Destination,
        labs::wire::{Machine, MachineUser, Play},
    };

    const HOST: &str = "playground-0123456789abcdef01234567";

    fn said(ide: &str, path: Option<&str>) -> String {
        said_to("laborant", ide, path)
    }

    fn said_to(user: &str, ide: &str, path: Option<&str>) -> String {
        let users = vec![MachineUser { name: "laborant".into(), default: true }];
        let machine = Machine { users, ..Machine::default() };
        let place =
            Destination { host: HOST.into(), play: Play::default(), machine, container: None, user: user.into() };
        by_name(ide).unwrap().arguments(&place, path).join(" ")
    }

    #[test]
    fn each_is_told_in_its_own_way() {
        let folder = format!("--folder-uri vscode-remote://ssh-remote+{HOST}/home/a%20b/%C3%A9%23");
        assert_eq!(said("code", Some("/home/a b/é#")), folder);
        assert_eq!(said("cursor", None), format!("--new-window --remote ssh-remote+{HOST}"));
        assert_eq!(
            said("codium", Some("/x.code-workspace")),
            format!("--file-uri vscode-remote://ssh-remote+{HOST}/x.code-workspace")
        );
        let other = format!("--folder-uri vscode-remote://ssh-remote+root@{HOST}/srv");
        assert_eq!(said_to("root", "windsurf", Some("/srv")), other, "not silently another user");
        assert_eq!(said_to("root", "code", None), format!("--new-window --remote ssh-remote+root@{HOST}"));
        assert_eq!(said("zed", Some("/srv")), format!("ssh://laborant@{HOST}/srv"));
        assert_eq!(
            said("goland", Some("/home/a&b")),
            format!(
                "jetbrains-gateway://connect#projectPath=/home/a%26b&host={HOST}&port=22&user=laborant&type=ssh\
                 &deploy=true&productCode=GO"
            )
        );
    }

    #[test]
    fn names_are_unique_and_an_unknown_one_is_told_them() {
        let mut names: Vec<_> = ALL.iter().map(|ide| ide.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(by_name("antigravity-ide").unwrap().name, "antigravity");
        for name in ["devin", "windsurf", "devin-desktop"] {
            assert_eq!(by_name(name).unwrap().title, "Devin Desktop");
        }
        let error = by_name("emacs").unwrap_err();
        assert!(error.hint().unwrap().contains("rustrover"));
    }
}
