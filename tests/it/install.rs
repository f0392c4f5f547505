//! The package and its installer, in a fresh folder.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::support::write_program;

fn script(name: &str, args: &[&Path], home: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    Command::new(script).args(args).env("HOME", home).output().unwrap()
}

fn program(folder: &Path, version: &str) -> PathBuf {
    let path = folder.join(format!("program-{version}"));
    write_program(&path, &format!("#!/bin/sh\necho labctl-ssh-proxy {version}\n"));
    path
}

#[test]
fn what_was_packed_is_installed_and_what_was_tampered_with_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (packages, home) = (folder.path().join("packages"), folder.path().join("home"));
    fs::create_dir(&home).unwrap();
    let pack = |version: &str| {
        let packed = script("package", &[&program(folder.path(), version), &packages], &home);
        assert!(packed.status.success(), "{packed:?}");
        PathBuf::from(String::from_utf8(packed.stdout).unwrap().trim())
    };
    let installed = home.join(".local/bin/labctl-ssh-proxy");
    let version = || {
        let output = Command::new(&installed).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let archive = pack("1");
    assert_eq!(fs::read(&archive).unwrap(), fs::read(pack("1")).unwrap(), "the same bytes each time");
    let output = script("install", &[&packages], &home);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(version(), "labctl-ssh-proxy 1");
    assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o777, 0o755);

    pack("2");
    let sum = PathBuf::from(format!("{}.sha256", archive.display()));
    let good = fs::read(&sum).unwrap();
    for (bytes, words) in [
        (b"".to_vec(), "has no checksum"),
        ([b"0".repeat(64), b"  other.tar.gz\n".to_vec()].concat(), "has no checksum"),
        ([b"0".repeat(64), good[64..].to_vec()].concat(), "checksum is wrong"),
    ] {
        fs::write(&sum, bytes).unwrap();
        let output = script("install", &[&packages], &home);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{said}");
        assert_eq!(version(), "labctl-ssh-proxy 1", "the old one stays");
    }
    fs::write(&sum, &good).unwrap();
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    assert!(!script("install", &[&packages], &home).status.success());
    assert!(!script("install", &[Path::new("http://127.0.0.1:9/x")], &home).status.success());
    pack("2");
    assert!(script("install", &[&packages], &home).status.success());
    assert_eq!(version(), "labctl-ssh-proxy 2");
    assert_eq!(fs::read_dir(home.join(".local/bin")).unwrap().count(), 1, "nothing is left");
}
