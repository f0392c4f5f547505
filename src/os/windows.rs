//! Calls of Windows' own that std has no form of: access lists, and the time of a process.

#![expect(unsafe_code, reason = "the system's calls take pointers")]

use std::{
    ffi::{OsStr, c_void},
    fs::File,
    io,
    os::windows::{
        ffi::OsStrExt,
        io::{AsRawHandle, FromRawHandle, OwnedHandle},
    },
    path::Path,
    ptr::{null, null_mut},
    time::Duration,
};

use windows_sys::Win32::{
    Foundation::{FILETIME, GENERIC_READ, GENERIC_WRITE, HANDLE, INVALID_HANDLE_VALUE, LocalFree},
    Security::{
        ACL,
        Authorization::{
            ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo,
            SDDL_REVISION_1, SE_FILE_OBJECT, SetSecurityInfo,
        },
        DACL_SECURITY_INFORMATION, GetSecurityDescriptorControl, GetTokenInformation,
        PROTECTED_DACL_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, SE_DACL_PROTECTED, SECURITY_ATTRIBUTES, TOKEN_QUERY,
        TOKEN_USER, TokenUser, UNPROTECTED_DACL_SECURITY_INFORMATION,
    },
    Storage::FileSystem::{
        CREATE_NEW, CreateDirectoryW, CreateFileW, DELETE, FILE_ATTRIBUTE_NORMAL, FILE_SHARE_DELETE, FILE_SHARE_READ,
        FILE_SHARE_WRITE, READ_CONTROL, WRITE_DAC,
    },
    System::{
        SystemInformation::GetSystemTimePreciseAsFileTime,
        Threading::{GetCurrentProcess, GetProcessTimes, OpenProcessToken},
    },
};

/// Memory that the system has allocated for us.
struct Local(*mut c_void);

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: the pointer is the system's, from a call whose memory LocalFree frees, and is used no more.
        unsafe { LocalFree(self.0) };
    }
}

/// Turns a call's answer into its error.
fn done(answer: i32) -> io::Result<()> {
    if answer == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A text that ends with a zero.
fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

/// A path as the system's calls take it, even one of more than 260 characters.
fn wide_path(path: &Path) -> io::Result<Vec<u16>> {
    /// MAX_PATH, less the name that a folder must leave room for.
    const LONG: usize = 260 - 12;
    let path = std::path::absolute(path)?;
    let text = wide(&path);
    let is_verbatim = path.as_os_str().as_encoded_bytes().starts_with(br"\\");
    Ok(if text.len() < LONG || is_verbatim {
        text
    } else {
        wide([OsStr::new(r"\\?\"), path.as_os_str()].join(OsStr::new("")))
    })
}

/// The user whom this process runs as, as the text of a security identifier.
fn user() -> io::Result<String> {
    // SAFETY: each call gets pointers to variables that live until it returns. The buffer is as long as it is said to
    // be and is aligned for the structure that the system puts into it. The system ends the text with a zero.
    unsafe {
        let mut token = null_mut();
        done(OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token))?;
        let token = OwnedHandle::from_raw_handle(token);
        let mut buffer = [0_u64; 32];
        let mut length = 0;
        let size = u32::try_from(size_of_val(&buffer)).unwrap_or_default();
        done(GetTokenInformation(token.as_raw_handle(), TokenUser, buffer.as_mut_ptr().cast(), size, &raw mut length))?;
        let found = &*buffer.as_ptr().cast::<TOKEN_USER>();
        let mut text: *mut u16 = null_mut();
        done(ConvertSidToStringSidW(found.User.Sid, &raw mut text))?;
        let text = Local(text.cast());
        let start = text.0.cast::<u16>().cast_const();
        let length = (0..).take_while(|at| *start.add(*at) != 0).count();
        Ok(String::from_utf16_lossy(std::slice::from_raw_parts(start, length)))
    }
}

/// Calls `make` with attributes that give a new file or folder, and all that is made in the folder, to this user, the
/// system and the administrators: to whom ssh.exe lets a private key belong.
fn privately<T>(make: impl FnOnce(&SECURITY_ATTRIBUTES) -> io::Result<T>) -> io::Result<T> {
    let list = wide(format!("D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;{})", user()?));
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    // SAFETY: the text ends with a zero, and both pointers are valid until the call returns.
    done(unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            list.as_ptr(),
            SDDL_REVISION_1,
            &raw mut descriptor,
            null_mut(),
        )
    })?;
    let descriptor = Local(descriptor);
    make(&SECURITY_ATTRIBUTES {
        nLength: u32::try_from(size_of::<SECURITY_ATTRIBUTES>()).unwrap_or_default(),
        lpSecurityDescriptor: descriptor.0,
        bInheritHandle: 0,
    })
}

/// Makes a file that was not there, for this user only.
///
/// # Errors
/// Fails when it is there, or cannot be made.
pub(super) fn new_private_file(path: &Path) -> io::Result<File> {
    let name = wide_path(path)?;
    privately(|attributes| {
        let access = GENERIC_READ | GENERIC_WRITE | DELETE | READ_CONTROL | WRITE_DAC;
        let share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
        // SAFETY: the name ends with a zero, and the attributes live until the call returns. The handle is ours alone.
        unsafe {
            let made =
                CreateFileW(name.as_ptr(), access, share, attributes, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, null_mut());
            if made == INVALID_HANDLE_VALUE {
                return Err(io::Error::last_os_error());
            }
            Ok(File::from_raw_handle(made))
        }
    })
}

/// Makes a folder that was not there, for this user only.
///
/// # Errors
/// Fails when it is there, or cannot be made.
pub(super) fn new_private_folder(path: &Path) -> io::Result<()> {
    let name = wide_path(path)?;
    // SAFETY: the name ends with a zero, and the attributes live until the call returns.
    privately(|attributes| done(unsafe { CreateDirectoryW(name.as_ptr(), attributes) }))
}

/// Gives `new` the access list of `old`, inherited or its own.
///
/// # Errors
/// Fails when one of them cannot be read or changed.
pub(super) fn copy_access_list(old: &File, new: &File) -> io::Result<()> {
    let failed = |code: u32| if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) };
    let (mut list, mut descriptor): (*mut ACL, PSECURITY_DESCRIPTOR) = (null_mut(), null_mut());
    let (mut control, mut revision) = (0, 0);
    // SAFETY: the handles are open as long as the files are borrowed, and each call gets pointers to variables that
    // live until it returns. The list is a part of the descriptor, which is freed at the end.
    unsafe {
        failed(GetSecurityInfo(
            old.as_raw_handle(),
            SE_FILE_OBJECT,
            DACL_SECURITY_INFORMATION,
            null_mut(),
            null_mut(),
            &raw mut list,
            null_mut(),
            &raw mut descriptor,
        ))?;
        let descriptor = Local(descriptor);
        done(GetSecurityDescriptorControl(descriptor.0, &raw mut control, &raw mut revision))?;
        let inherits = match control & SE_DACL_PROTECTED {
            0 => UNPROTECTED_DACL_SECURITY_INFORMATION,
            _ => PROTECTED_DACL_SECURITY_INFORMATION,
        };
        let what = DACL_SECURITY_INFORMATION | inherits;
        failed(SetSecurityInfo(new.as_raw_handle(), SE_FILE_OBJECT, what, null_mut(), null_mut(), list, null()))
    }
}

/// The time since this process was created.
pub(super) fn process_age() -> io::Result<Duration> {
    let zero = FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 };
    let (mut created, mut other, mut now) = (zero, [zero; 3], zero);
    let own: HANDLE;
    // SAFETY: the pointers are to variables that live until the calls return.
    unsafe {
        own = GetCurrentProcess();
        let [exited, kernel, user] = &mut other;
        done(GetProcessTimes(own, &raw mut created, exited, kernel, user))?;
        GetSystemTimePreciseAsFileTime(&raw mut now);
    }
    // In units of 100 ns.
    let units = |time: FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    Ok(Duration::from_nanos(units(now).saturating_sub(units(created)).saturating_mul(100)))
}
