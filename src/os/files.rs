//! Files: their owners, their modes, and what the system keeps beside their contents.

#[cfg(unix)]
use std::path::PathBuf;
use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    path::Path,
};

/// Reports whether a file belongs to a stranger: neither the user of this process nor the owner of the folder that the
/// file is in.
pub fn is_strangers(found: &Metadata, folder: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        ![rustix::process::geteuid().as_raw(), folder.uid()].contains(&found.uid())
    }
    #[cfg(not(unix))]
    {
        let _ = (found, folder);
        false
    }
}

/// The user and the group that own a file.
#[cfg(unix)]
pub fn owner(found: &Metadata) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    (found.uid(), found.gid())
}

/// Nothing: these systems have no such owners.
#[cfg(not(unix))]
pub fn owner(_found: &Metadata) {}

/// The user to whom the files below `home` have to belong: the user of this process or, for root, who may run with
/// another user's HOME, the owner of that home.
#[cfg(unix)]
pub(crate) fn rightful_owner(home: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    let user = rustix::process::geteuid();
    let of_home = if user.is_root() { std::fs::metadata(home).ok() } else { None };
    of_home.map_or(user.as_raw(), |found| found.uid())
}

/// The command by which files of root's become those of `owner`.
#[cfg(unix)]
pub(crate) fn give_back(owner: u32, paths: &[PathBuf]) -> String {
    let quoted = |path: &PathBuf| {
        let path = path.display().to_string();
        if path.contains(|c: char| !c.is_ascii_alphanumeric() && !"/._-".contains(c)) {
            return format!(" '{}'", path.replace('\'', "'\\''"));
        }
        format!(" {path}")
    };
    format!("sudo chown -R {}{}", user_name(owner), paths.iter().map(quoted).collect::<String>())
}

/// The login name of a user of `/etc/passwd`; the number of any other.
#[cfg(unix)]
fn user_name(uid: u32) -> String {
    let number = uid.to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.len() > 2 && fields[2] == number).then(|| fields[0].to_owned())
    });
    name.unwrap_or(number)
}

/// Makes a file that was not there, for its owner only (0600) from the moment it exists, whatever the umask. What root
/// makes in another user's `folder` is that user's.
///
/// # Errors
/// Fails when it is there, or cannot be made.
pub(crate) fn new_private_file(path: &Path, folder: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let file = OpenOptions::new().create_new(true).read(true).write(true).mode(PRIVATE_FILE).open(path)?;
        settle(&file, folder, PRIVATE_FILE)?;
        Ok(file)
    }
    #[cfg(windows)]
    {
        let _ = folder;
        super::windows::new_private_file(path)
    }
}

/// Makes a folder that was not there, in the same way (0700).
///
/// # Errors
/// Fails when it is there, or cannot be made.
pub(crate) fn new_private_folder(path: &Path, folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(PRIVATE_FOLDER).create(path)?;
        settle(&open_new_folder(path)?, folder, PRIVATE_FOLDER)
    }
    #[cfg(windows)]
    {
        let _ = folder;
        super::windows::new_private_folder(path)
    }
}

/// The mode of a file that may hold secrets or that only its owner should change.
#[cfg(unix)]
pub(crate) const PRIVATE_FILE: u32 = 0o600;
#[cfg(unix)]
const PRIVATE_FOLDER: u32 = 0o700;

/// Completes a file or folder that this process has just made in `folder`. It gets the bits of `mode` that the umask
/// took away. If root made it in another user's folder, it gets the folder's owner, who could not use it otherwise.
#[cfg(unix)]
fn settle(made: &File, folder: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let found = made.metadata()?;
    if found.mode() & mode != mode {
        made.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    if rustix::process::geteuid().is_root() {
        let heir = std::fs::metadata(folder)?;
        if heir.uid() != found.uid() {
            // If root may not do that, as on some network file systems, the file stays as it is.
            let _ = fchown(made, Some(heir.uid()), Some(heir.gid()));
        }
    }
    Ok(())
}

/// Opens a folder that was just made, and never what a link leads to: another user may have put one in its place.
#[cfg(unix)]
fn open_new_folder(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    let open = || OpenOptions::new().read(true).custom_flags(flags).open(path);
    match open() {
        // A umask that leaves nothing to the owner either.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
            open()
        }
        other => other,
    }
}

/// Opens a file or a folder, to lock it.
///
/// # Errors
/// Fails when it cannot be opened.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, FOLDERS_TOO);
    options.open(path)
}

/// FILE_FLAG_BACKUP_SEMANTICS, without which a folder cannot be opened.
#[cfg(windows)]
const FOLDERS_TOO: u32 = 0x0200_0000;

/// Marks an open file or folder as one whose maker lives, for [`abandoned`].
///
/// # Errors
/// As [`File::try_lock`].
#[cfg(unix)]
pub(crate) fn mark(file: &File) -> Result<(), std::fs::TryLockError> {
    file.try_lock()
}

/// Does nothing, because [`abandoned`] finds that the file is open. A lock would be in the way: no other process can
/// read a locked file, even when it has its final name.
#[cfg(windows)]
pub(crate) fn mark(_file: &File) -> Result<(), std::fs::TryLockError> {
    Ok(())
}

/// Opens a file or folder whose maker has ended, to be kept open until it is deleted. `None` while the maker lives.
#[cfg(unix)]
pub(crate) fn abandoned(path: &Path) -> Option<File> {
    let file = open_folder(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}

/// Reports whether the maker of a file or folder has ended, because no process has it open. A name is never given
/// again, so it stays abandoned.
#[cfg(windows)]
pub(crate) fn abandoned(path: &Path) -> Option<()> {
    use std::os::windows::fs::OpenOptionsExt;
    OpenOptions::new().read(true).share_mode(0).custom_flags(FOLDERS_TOO).open(path).ok().map(drop)
}

/// Reports whether a file could not be opened or replaced only because another process has it open. Windows, unlike
/// Unix, refuses that for as long as a program such as ssh.exe or a virus scanner reads the file.
pub(crate) fn is_in_use(error: &io::Error) -> bool {
    /// ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION and ERROR_LOCK_VIOLATION.
    const IN_USE: [i32; 3] = [5, 32, 33];
    cfg!(windows) && error.raw_os_error().is_some_and(|code| IN_USE.contains(&code))
}

/// Adds to `options` that neither opening nor writing waits, not even for the reader of a pipe.
pub(crate) fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    options
}

/// Reports whether a file is the null device, which reads as an empty file.
pub(crate) fn is_null_device(found: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let null = |null: Metadata| null.rdev() == found.rdev();
        found.file_type().is_char_device() && std::fs::metadata("/dev/null").is_ok_and(null)
    }
    #[cfg(not(unix))]
    {
        let _ = found;
        false
    }
}

/// The command that gives the user a file or folder of root's back which bars the way to `path` and lies in a folder of
/// the user's own: what an earlier run as root with this user's HOME has left.
#[cfg(unix)]
pub(crate) fn left_by_root(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let user = rustix::process::geteuid();
    let found = |path: &Path| std::fs::symlink_metadata(path).ok();
    let in_own_folder = |path: &&Path| {
        let folder = path.parent().and_then(found);
        folder.is_some_and(|folder| folder.is_dir() && folder.uid() == user.as_raw())
    };
    if user.is_root() {
        return None;
    }
    let mut roots = path.ancestors().filter(|path| found(path).is_some_and(|found| found.uid() == 0));
    Some(give_back(user.as_raw(), &[roots.find(in_own_folder)?.to_owned()]))
}

/// None: these systems have no root.
#[cfg(not(unix))]
pub(crate) fn left_by_root(_path: &Path) -> Option<String> {
    None
}

/// The number of names that a file has.
pub(crate) fn links(found: &Metadata) -> u64 {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::nlink(found)
    }
    #[cfg(not(unix))]
    {
        let _ = found;
        1
    }
}

/// Makes `new` a file like `old`, which it is to replace: with its owner, its mode, and what the system keeps beside the
/// contents. The group stays as it is where the system refuses the old one, and then has no more rights than everybody.
///
/// # Errors
/// Fails when it cannot be made alike.
#[cfg(unix)]
pub(crate) fn make_alike(new: &File, old: &Path, found: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let own = new.metadata()?;
    let mut mode = found.mode() & 0o7777;
    if own.uid() != found.uid() {
        fchown(new, Some(found.uid()), None)?;
    }
    if own.gid() != found.gid() && fchown(new, None, Some(found.gid())).is_err() {
        mode = mode & !0o070 | (mode & 0o007) << 3;
    }
    new.set_permissions(std::fs::Permissions::from_mode(mode))?;
    attributes::copy(old, new)
}

/// Makes `new` a file like `old`, which it is to replace: with its access list and its attributes.
///
/// # Errors
/// Fails when it cannot be made alike.
#[cfg(windows)]
pub(crate) fn make_alike(new: &File, old: &Path, found: &Metadata) -> io::Result<()> {
    super::windows::copy_access_list(&File::open(old)?, new)?;
    new.set_permissions(found.permissions())
}

/// Extended attributes, among which are Linux' access control lists and security labels.
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod attributes {
    use std::{ffi::CString, fs::File, io, path::Path};

    use rustix::{
        fs::{self, XattrFlags},
        io::Errno,
    };

    /// The list that a new file inherits from its folder, even if the old one has none.
    const ACCESS_LIST: &str = "system.posix_acl_access";
    /// The system writes it itself, and no other program may.
    const PROVENANCE: &str = "com.apple.provenance";

    /// Copies them. Those of which `new` has the same value already are left alone, because some may not be written.
    pub(super) fn copy(old: &Path, new: &File) -> io::Result<()> {
        let names = all(|room| fs::listxattr(old, room))?.unwrap_or_default();
        let mut has_list = false;
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && *name != PROVENANCE.as_bytes()) {
            let name = CString::new(name)?;
            has_list |= name.as_bytes() == ACCESS_LIST.as_bytes();
            let value = all(|room| fs::getxattr(old, &name, room))?;
            if let Some(value) = value
                && all(|room| fs::fgetxattr(new, &name, room))?.as_ref() != Some(&value)
            {
                fs::fsetxattr(new, &name, &value, XattrFlags::empty())?;
            }
        }
        if !has_list && all(|room| fs::fgetxattr(new, ACCESS_LIST, room))?.is_some() {
            fs::fremovexattr(new, ACCESS_LIST)?;
        }
        Ok(())
    }

    /// The answer to a question, or `None` if there is no such thing. Linux allows no more than 64 KiB.
    fn all(ask: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
        let mut room = vec![0; 64 * 1024];
        match ask(&mut room) {
            Ok(size) => {
                room.truncate(size);
                Ok(Some(room))
            }
            Err(Errno::NOTSUP | NONE) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    #[cfg(target_os = "linux")]
    const NONE: Errno = Errno::NODATA;
    #[cfg(target_os = "macos")]
    const NONE: Errno = Errno::NOATTR;
}

/// Nothing: it is not known how these systems keep them.
#[cfg(all(unix, not(any(target_os = "linux", target_os = "macos"))))]
mod attributes {
    pub(super) fn copy(_old: &std::path::Path, _new: &std::fs::File) -> std::io::Result<()> {
        Ok(())
    }
}
