// A real VS Code's server in a container that has one static program: it is started as Remote-SSH does it, by a script for bash
// and a forward for its window. The judges are a window of Chromium, the kernel, and docker's own client.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { Engine } from './engine.mjs';
import { World, extension, until } from './world.mjs';

if (!Engine.canRun) process.exit();
const cache = path.resolve(extension, '../target/code-server');
const { chromium } = await import(path.join(cache, 'node_modules/playwright-core/index.mjs'));
const engine = new Engine();
const work = path.join(engine.folder, 'work');
let browser, page, ssh, world;

const SCRIPT = `
set -e
mkdir -p ~/user/User
echo '{"security.workspace.trust.enabled": false, "workbench.startupEditor": "none", "chat.disableAIFeatures": true}' >~/user/User/settings.json
export EXTENSIONS_GALLERY='{"serviceUrl":"http://127.0.0.1:9/none"}'
/server/node_modules/node-linux-*/bin/node /server/node_modules/code-server/out/node/entry.js --bind-addr 127.0.0.1:9123 --auth none \\
  --disable-telemetry --disable-update-check --user-data-dir ~/user --extensions-dir ~/ext >~/log 2>&1
cat ~/log >&2
`;

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

try {
  await engine.start();
  engine.image('shop/api:2.0', { shell: false, changes: ['USER 65532', 'CMD ["httpd", "-f", "-p", "8000"]'] });
  mkdirSync(work);
  chmodSync(work, 0o777);
  engine.docker('run', '-d', '--name', 'api', '--network', 'none', '-v', `${cache}:/server:ro`, '-v', `${work}:/data`, 'shop/api:2.0');
  world = new World(['--engine', engine.socket]);
  await world.served;
  await world.run('config-ssh', '--yes');
  await world.run('start', 'shell', '--json');
  const [play] = await world.list();
  const port = await freePort();

  console.log('- the server starts where the image has one program');
  const host = `playground-${play.id}.shell-01.api`;
  ssh = spawn('ssh', ['-F', path.join(world.home, '.ssh/config'), '-T', '-D', port, '-o', 'ConnectTimeout=15', host, 'bash'], {
    env: world.env,
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  ssh.stdin.end(SCRIPT);
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--headless=new', '--disable-gpu', `--proxy-server=socks5://127.0.0.1:${port}`, '--proxy-bypass-list=<-loopback>'],
  });
  page = await browser.newPage({ viewport: { width: 1100, height: 640 } });
  await until('it answers', () => page.goto('http://127.0.0.1:9123/?folder=/data').then((answer) => answer.ok(), () => false), 60_000);

  console.log('- its window, and a terminal that is confined as the container is');
  await page.locator('.monaco-workbench').waitFor({ timeout: 60_000 });
  await page.locator('.explorer-folders-view').waitFor({ timeout: 60_000 });
  await page.keyboard.press('Control+Backquote');
  await page.locator('.xterm').first().click({ timeout: 60_000 });
  await page.keyboard.type('grep -E "^(Uid|CapBnd|Seccomp|NoNewPrivs):" /proc/self/status >/data/new; mv /data/new /data/status\n');
  await until('the file is there', () => existsSync(path.join(work, 'status')), 30_000);
  const first = readFileSync(`/proc/${engine.docker('inspect', '--format', '{{.State.Pid}}', 'api')}/status`, 'utf8');
  const expected = first.split('\n').filter((line) => /^(Uid|CapBnd|Seccomp|NoNewPrivs):/.test(line));
  assert.deepEqual(readFileSync(path.join(work, 'status'), 'utf8').trim().split('\n'), expected);
  await page.locator('.explorer-folders-view .monaco-list-row', { hasText: 'status' }).waitFor({ timeout: 30_000 });

  console.log('- nothing is left in the container');
  assert.doesNotMatch(engine.docker('diff', 'api'), /home|root|tmp|usr|etc/);
} catch (error) {
  console.error(error);
  await page?.screenshot({ path: path.join(extension, 'dist/failed.png') }).catch(() => undefined);
  process.exitCode = 1;
} finally {
  await browser?.close();
  ssh?.kill();
  await world?.end();
  await engine.end();
}
process.exit();
