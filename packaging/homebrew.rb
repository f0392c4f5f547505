# The template of Homebrew's formula. `scripts/publisher formula` fills it in: each word between two @ is a value of
# packaging/publisher.toml or of Cargo.toml, or the name of a target, in whose place the checksum of its archive comes.
class LabctlSshProxy < Formula
  desc "Makes `ssh playground-<id>` just work, from every IDE and from plain ssh"
  homepage "@homepage@"
  version "@version@"
  license "Apache-2.0"

  on_macos do
    on_arm do
      url "@archives@-aarch64-apple-darwin.tar.gz"
      sha256 "@aarch64-apple-darwin@"
    end
    on_intel do
      url "@archives@-x86_64-apple-darwin.tar.gz"
      sha256 "@x86_64-apple-darwin@"
    end
  end

  on_linux do
    on_arm do
      url "@archives@-aarch64-unknown-linux-musl.tar.gz"
      sha256 "@aarch64-unknown-linux-musl@"
    end
    on_intel do
      url "@archives@-x86_64-unknown-linux-musl.tar.gz"
      sha256 "@x86_64-unknown-linux-musl@"
    end
  end

  def install
    bin.install "labctl-ssh-proxy"
    (lib/"labctl-ssh-proxy").install "labctl-ssh-proxy-helper-aarch64.gz"
    man1.install Dir["man/man1/*.1"]
    bash_completion.install "completions/labctl-ssh-proxy.bash" => "labctl-ssh-proxy"
    zsh_completion.install "completions/_labctl-ssh-proxy"
    fish_completion.install "completions/labctl-ssh-proxy.fish"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/labctl-ssh-proxy --version")
    # An empty home, so that there is no login: exit status 3.
    assert_match "labctl-ssh-proxy login", shell_output("#{bin}/labctl-ssh-proxy whoami 2>&1", 3)
  end
end
