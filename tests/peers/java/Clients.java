import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.net.SocketAddress;
import java.nio.file.Path;
import java.security.PublicKey;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import javax.net.SocketFactory;
import net.schmizz.keepalive.KeepAliveProvider;
import net.schmizz.sshj.DefaultConfig;
import net.schmizz.sshj.SSHClient;
import net.schmizz.sshj.connection.channel.direct.Session;
import net.schmizz.sshj.sftp.SFTPClient;
import net.schmizz.sshj.transport.verification.HostKeyVerifier;
import net.schmizz.sshj.transport.verification.OpenSSHKnownHosts;

/**
 * JetBrains' way to a host: options from `ssh -G`, its ProxyCommand as the socket, sshj on top, several connections at
 * once, files by SFTP. Clients FILE HOST CONNECTIONS KEY_EXCHANGE_MS [LOCAL REMOTE]; a line for each connection.
 * Clients FILE HOST talk KEEPALIVE_S: one connection, on which `cat` repeats standard input.
 */
public class Clients {
    public static void main(String[] args) throws Exception {
        String host = args[1];
        Map<String, String> options = options(args[0], host);
        if (args[2].equals("talk")) {
            talk(host, options, Integer.parseInt(args[3]));
            return;
        }
        int timeout = Integer.parseInt(args[3]);
        ExecutorService threads = Executors.newCachedThreadPool();
        List<Future<String>> answers = new ArrayList<>();
        for (int i = 0; i < Integer.parseInt(args[2]); i++) {
            boolean uploads = i == 0 && args.length > 4;
            answers.add(threads.submit(() -> {
                try (SSHClient client = new SSHClient()) {
                    client.setSocketFactory(new ProxyCommands(options.get("proxycommand").replace("%r", options.get("user"))));
                    client.addHostKeyVerifier(known(options.get("userknownhostsfile"), host));
                    client.setTimeout(timeout);
                    client.getTransport().setTimeoutMs(timeout);
                    // An address, so that no name is looked up: the ProxyCommand knows where to go.
                    client.connect("127.0.0.1", 22);
                    client.authPublickey(options.get("user"), options.get("identityfile"));
                    if (uploads) {
                        try (SFTPClient sftp = client.newSFTPClient()) {
                            sftp.getFileTransfer().upload(args[4], args[5]);
                        }
                    }
                    try (Session session = client.startSession(); Session.Command command = session.exec("echo in")) {
                        ByteArrayOutputStream out = new ByteArrayOutputStream();
                        command.getInputStream().transferTo(out);
                        return out.toString().trim();
                    }
                } catch (Exception e) {
                    return e.getClass().getSimpleName() + ": " + e.getMessage();
                }
            }));
        }
        for (Future<String> answer : answers) {
            System.out.println(answer.get());
        }
        threads.shutdown();
    }

    /** sshj ends a connection that has left five keepalives unanswered. */
    private static void talk(String host, Map<String, String> options, int interval) throws Exception {
        DefaultConfig config = new DefaultConfig();
        config.setKeepAliveProvider(KeepAliveProvider.KEEP_ALIVE);
        try (SSHClient client = new SSHClient(config)) {
            client.setSocketFactory(new ProxyCommands(options.get("proxycommand").replace("%r", options.get("user"))));
            client.addHostKeyVerifier(known(options.get("userknownhostsfile"), host));
            client.getConnection().getKeepAlive().setKeepAliveInterval(interval);
            client.connect("127.0.0.1", 22);
            client.authPublickey(options.get("user"), options.get("identityfile"));
            try (Session session = client.startSession(); Session.Command command = session.exec("cat")) {
                Thread up = new Thread(() -> {
                    try {
                        byte[] bytes = new byte[4096];
                        for (int n; (n = System.in.read(bytes)) > 0;) {
                            command.getOutputStream().write(bytes, 0, n);
                            command.getOutputStream().flush();
                        }
                        command.getOutputStream().close();
                    } catch (IOException e) {
                        e.printStackTrace();
                    }
                });
                up.start();
                byte[] bytes = new byte[4096];
                for (int n; (n = command.getInputStream().read(bytes)) > 0;) {
                    System.out.write(bytes, 0, n);
                    System.out.flush();
                }
            }
        }
    }

    private static Map<String, String> options(String file, String host) throws Exception {
        Process ssh = new ProcessBuilder("ssh", "-F", file, "-G", host).redirectErrorStream(true).start();
        Map<String, String> options = new TreeMap<>();
        for (String line : new String(ssh.getInputStream().readAllBytes()).lines().toList()) {
            String[] pair = line.split(" ", 2);
            options.putIfAbsent(pair[0], pair.length > 1 ? pair[1] : "");
        }
        return options;
    }

    private static HostKeyVerifier known(String file, String host) throws IOException {
        OpenSSHKnownHosts known = new OpenSSHKnownHosts(Path.of(file).toFile());
        return new HostKeyVerifier() {
            public boolean verify(String address, int port, PublicKey key) {
                return known.verify(host, 22, key);
            }

            public List<String> findExistingAlgorithms(String address, int port) {
                return known.findExistingAlgorithms(host, 22);
            }
        };
    }

    /** Sockets that are the standard streams of a ProxyCommand. */
    private static class ProxyCommands extends SocketFactory {
        private final String command;

        ProxyCommands(String command) {
            this.command = command;
        }

        public Socket createSocket() throws IOException {
            Process process = new ProcessBuilder("/bin/sh", "-c", "exec " + command)
                .redirectError(ProcessBuilder.Redirect.DISCARD).start();
            return new Socket() {
                public void connect(SocketAddress address, int timeout) {}

                public void connect(SocketAddress address) {}

                public boolean isConnected() {
                    return true;
                }

                public void setSoTimeout(int timeout) {}

                public InputStream getInputStream() {
                    return process.getInputStream();
                }

                public OutputStream getOutputStream() {
                    return process.getOutputStream();
                }

                public synchronized void close() throws IOException {
                    process.destroy();
                }
            };
        }

        public Socket createSocket(String host, int port) throws IOException {
            return createSocket();
        }

        public Socket createSocket(String host, int port, java.net.InetAddress from, int local) throws IOException {
            return createSocket();
        }

        public Socket createSocket(java.net.InetAddress host, int port) throws IOException {
            return createSocket();
        }

        public Socket createSocket(java.net.InetAddress host, int port, java.net.InetAddress from, int local)
            throws IOException {
            return createSocket();
        }
    }
}
