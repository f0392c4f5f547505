// ssh2 through a ProxyCommand: USER KEY COMMAND PROXY...
// As the forks of Remote-SSH do it: a child without a shell, whose standard error nobody reads.
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const { Duplex } = require("node:stream");
const { Client } = require("ssh2");

const [user, key, command, program, ...args] = process.argv.slice(2);
const proxy = spawn(program, args);
const sock = Duplex.from({ readable: proxy.stdout, writable: proxy.stdin });
const client = new Client();
client
  .on("ready", () =>
    client.exec(command, (error, stream) => {
      if (error) throw error;
      stream.on("close", () => ((process.exitCode = 0), client.end())).pipe(process.stdout);
    }),
  )
  .on("error", (error) => {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  })
  .on("close", () => process.exit(process.exitCode ?? 1))
  .connect({ sock, username: user, privateKey: fs.readFileSync(key), readyTimeout: 60_000 });
