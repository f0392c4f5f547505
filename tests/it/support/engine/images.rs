//! The images of the tests' containers, made here from Debian's static busybox and from `tests/targets/app.c`.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use super::{BUSYBOX, SCRATCH, succeed};
use crate::support::{needs, noise};

/// An image: its name, user and environment.
#[derive(Clone, Copy)]
pub struct Image {
    pub name: &'static str,
    pub user: &'static str,
    pub variables: &'static [&'static str],
}

/// Makes each image's files in the folder `rootfs`, and hands it over.
pub fn make(rootfs: &Path, take: &mut dyn FnMut(&Path, Image)) {
    let app = rootfs.join("app");
    fs::create_dir_all(rootfs).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets/app.c");
    let mut compiler = Command::new(needs("musl-gcc"));
    succeed(compiler.args(["-static", "-Os", "-o"]).arg(&app).arg(source));
    fs::write(rootfs.join("data"), noise(1 << 20)).unwrap();
    take(rootfs, Image { name: SCRATCH, user: "65532", variables: &[] });

    for folder in ["bin", "etc", "root", "home/one", "var"] {
        fs::create_dir_all(rootfs.join(folder)).unwrap();
    }
    fs::create_dir(rootfs.join("tmp")).unwrap();
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let passwd = "root:x:0:0:root:/root:/bin/sh\none:x:1000:1000:One:/home/one:/bin/sh\n\
                  shellless:x:1001:1001::/nowhere:/sbin/nologin\n";
    fs::write(rootfs.join("etc/passwd"), passwd).unwrap();
    fs::write(rootfs.join("etc/group"), "root:x:0:\none:x:1000:\nmany:x:2000:one\n").unwrap();
    succeed(Command::new("chown").args(["1000:1000"]).arg(rootfs.join("home/one")));
    let bin = rootfs.join("bin");
    succeed(Command::new("cp").arg(needs("busybox")).arg(bin.join("busybox")));
    let applets = String::from_utf8(succeed(Command::new(bin.join("busybox")).arg("--list")).stdout).unwrap();
    for applet in applets.lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    take(rootfs, Image { name: BUSYBOX, user: "", variables: &["IN_THE_IMAGE=yes"] });
    fs::remove_dir_all(rootfs).unwrap();
}

/// The files of an image as an archive.
pub fn tar(rootfs: &Path) -> Vec<u8> {
    succeed(Command::new("tar").args(["--numeric-owner", "-c", "-C"]).arg(rootfs).arg(".")).stdout
}
