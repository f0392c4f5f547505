import com.jcraft.jsch.ConfigRepository;
import com.jcraft.jsch.OpenSSHConfig;
import java.util.List;

/** What JSch, the library that JetBrains' IDEs used before sshj, makes of an ssh configuration: Parsers FILE HOST. */
public class Parsers {
    public static void main(String[] args) throws Exception {
        ConfigRepository.Config found = OpenSSHConfig.parseFile(args[0]).getConfig(args[1]);
        StringBuilder json = new StringBuilder("{");
        List<String> names = List.of("User", "Hostname", "ProxyCommand", "IdentityFile", "UserKnownHostsFile");
        for (String name : names) {
            String value = switch (name) {
                case "User" -> found.getUser();
                case "Hostname" -> found.getHostname();
                case "IdentityFile" -> found.getValues(name).length == 0 ? null : found.getValues(name)[0];
                default -> found.getValue(name);
            };
            if (value != null) {
                json.append(json.length() > 1 ? "," : "").append(quoted(name.toLowerCase())).append(":").append(quoted(value));
            }
        }
        System.out.println(json.append("}"));
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }
}
