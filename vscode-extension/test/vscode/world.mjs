// An isolated world for tests in a real VS Code: a home folder, the binary's embedded platform, a code-server, a browser.
// All of it is removed at the end.
import { execFile, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';

const root = path.resolve(import.meta.dirname, '../../..');
export const extension = path.join(root, 'vscode-extension');
const cache = path.join(root, 'target/code-server/node_modules');
/** The code-server of the tests, and its Node. CODE_SERVER names the folder of another one, which scripts/try-old-vscode sets up. */
const modules = process.env.CODE_SERVER ? path.join(process.env.CODE_SERVER, 'node_modules') : cache;
const node = process.env.CODE_SERVER ? path.join(modules, `node-linux-${process.arch}/bin/node`) : process.execPath;
export const binary = path.resolve(process.env.LABCTL_SSH_PROXY ?? path.join(root, 'target/debug/labctl-ssh-proxy'));
const { chromium } = await import(path.join(cache, 'playwright-core/index.mjs'));

const manifest = JSON.parse(readFileSync(path.join(extension, 'package.json'), 'utf8'));
/** The id of the extension. VS Code calls a publisher undefined_publisher if there is none. */
export const id = `${manifest.publisher ?? 'undefined_publisher'}.${manifest.name}`;

export const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

export async function until(what, look, ms = 15_000) {
  const limit = Date.now() + ms;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > limit) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Shows the view. A restored window shows its last view after a while, and a click on that one's icon would hide it. */
export async function showView(page) {
  const title = page.locator('.part.sidebar .composite.title').first();
  const ours = title.filter({ hasText: /playgrounds/i });
  for (let attempt = 0; attempt < 4; attempt += 1) {
    await title.waitFor({ timeout: 10_000 }).catch(() => undefined);
    if (!(await ours.isVisible())) await page.locator('.activitybar [aria-label*="Playgrounds"]').first().click({ force: true });
    if (await ours.waitFor({ timeout: 10_000 }).then(() => true, () => false)) return;
  }
  throw new Error('never: the view');
}

/** The settings of every test. The file also gets a comment, which must survive. */
const SETTINGS = {
  'security.workspace.trust.enabled': false,
  'workbench.startupEditor': 'none',
  'workbench.colorTheme': 'Default Dark Modern',
  'chat.disableAIFeatures': true,
  'extensions.ignoreRecommendations': true,
  'telemetry.telemetryLevel': 'off',
  'workbench.reduceMotion': 'on',
  // There is no graphics card. Besides, the text of a terminal can be read only without acceleration.
  'terminal.integrated.gpuAcceleration': 'off',
  'window.commandCenter': false,
  'workbench.layoutControl.enabled': false,
  'security.promptForRemoteUriHandling': false,
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
  // A browser cannot run UI extensions, so this one has to run beside the binary.
  'remote.extensionKind': { [id]: ['workspace'] },
  'playgrounds.local': true,
  'playgrounds.binary': binary,
};

export class World {
  /** @param {string[]} serve options of the embedded platform */
  constructor(serve = []) {
    // A short path, because the length of a socket's path is limited.
    this.home = mkdtempSync('/tmp/lspx');
    mkdirSync(path.join(this.home, 'tmp'));
    this.env = { HOME: this.home, TMPDIR: path.join(this.home, 'tmp'), PATH: process.env.PATH, SHELL: '/bin/sh', LANG: 'C.UTF-8', TEST_BINARY: binary };
    this.pages = [];
    this.served = this.serve(...serve);
  }

  serve(...options) {
    this.platform = spawn(binary, ['local', 'serve', ...options], { env: this.env, stdio: 'ignore' });
    return until('the platform listens', () => this.run('local', 'status').then(() => true, () => false));
  }

  /** Restarts the platform like a computer that is rebooted. Its playgrounds are stopped then, but not deliberately. */
  async reboot(...options) {
    await this.run('local', 'stop');
    await until('it has ended', () => this.platform.exitCode !== null);
    await this.serve(...options);
  }

  async run(...args) {
    const { stdout } = await promisify(execFile)(binary, ['--local', ...args], { env: this.env });
    return stdout;
  }

  async list() {
    return JSON.parse(await this.run('list', '--json'));
  }

  settings(changes = {}) {
    const folder = path.join(this.home, 'user/User');
    mkdirSync(folder, { recursive: true });
    const text = JSON.stringify({ ...SETTINGS, ...changes }, null, 2);
    writeFileSync(path.join(folder, 'settings.json'), text.replace('{\n', '{\n  // This comment stays.\n'));
  }

  settingsText() {
    return readFileSync(path.join(this.home, 'user/User/settings.json'), 'utf8');
  }

  /** Starts code-server with the packed extension. `edit` changes the installed package.json, as another package would have it. */
  async start({ settings = {}, vsix = path.join(extension, 'dist/labctl-ssh-proxy.vsix'), edit } = {}) {
    await this.served;
    this.settings(settings);
    mkdirSync(path.join(this.home, 'folder'));
    this.codeServer('--install-extension', vsix);
    if (edit) {
      const [{ relativeLocation }] = JSON.parse(readFileSync(path.join(this.home, 'ext/extensions.json'), 'utf8'));
      const file = path.join(this.home, 'ext', relativeLocation, 'package.json');
      writeFileSync(file, JSON.stringify(edit(JSON.parse(readFileSync(file, 'utf8')))));
    }
    await this.startServer();
  }

  /** The arguments of code-server in this world, and its environment. */
  get invocation() {
    const entry = path.join(modules, 'code-server/out/node/entry.js');
    const args = [entry, '--user-data-dir', path.join(this.home, 'user'), '--extensions-dir', path.join(this.home, 'ext')];
    return { args, env: { ...this.env, EXTENSIONS_GALLERY: '{"serviceUrl":"http://127.0.0.1:9/none"}' } };
  }

  codeServer(...options) {
    const { args, env } = this.invocation;
    execFileSync(node, [...args, ...options], { env, stdio: 'pipe' });
  }

  async startServer() {
    const { args, env } = this.invocation;
    const port = await freePort();
    const quiet = ['--disable-telemetry', '--disable-update-check', '--auth', 'none'];
    const all = [...args, ...quiet, '--bind-addr', `127.0.0.1:${port}`];
    this.server = spawn(node, all, { env, stdio: 'ignore', detached: true });
    this.base = `http://127.0.0.1:${port}`;
    await until('code-server answers', () => fetch(`${this.base}/healthz`).then((answer) => answer.ok, () => false));
  }

  /** Uninstalls the extension. VS Code cleans up after it at its next start. */
  async uninstall() {
    this.codeServer('--uninstall-extension', id);
    process.kill(-this.server.pid, 'SIGKILL');
    await this.startServer();
    await this.window();
  }

  /**
   * Opens a window. `tests` is a module whose `run()` is executed in the extension host, beside the helper extension that
   * declares the settings of Remote-SSH. `page.finished` resolves to 0 or to a failure then.
   */
  async window({ folder = path.join(this.home, 'folder'), tests, width = 1100, height = 640, httpCredentials } = {}) {
    this.browser ??= await chromium.launch({
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--no-sandbox', '--headless=new', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--disable-component-update', '--no-first-run'],
    });
    const page = await this.browser.newPage({ viewport: { width, height }, httpCredentials });
    page.messages = [];
    page.on('console', (message) => page.messages.push(message.text().slice(0, 500)));
    if (process.env.VERBOSE) page.on('console', (message) => console.log('[vscode]', message.text().slice(0, 500)));
    page.finished = new Promise((resolve) => { void page.exposeFunction('codeAutomationExit', resolve); });
    const remote = (file) => ({ $mid: 1, scheme: 'vscode-remote', authority: new URL(this.base).host, path: file });
    if (tests) {
      // The workbench reads its options from this <meta>.
      await page.addInitScript(({ helper, suite }) => {
        const original = Element.prototype.getAttribute;
        Element.prototype.getAttribute = function (name) {
          const value = original.call(this, name);
          if (name !== 'data-settings' || this.id !== 'vscode-workbench-web-configuration' || !value) return value;
          const options = JSON.parse(value);
          options.developmentOptions = { ...options.developmentOptions, extensions: [helper], extensionTestsPath: suite };
          return JSON.stringify(options);
        };
      }, { helper: remote(path.join(extension, 'test/vscode/remote-ssh-settings')), suite: remote(tests) });
    }
    await page.goto(`${this.base}/?folder=${encodeURIComponent(folder)}`);
    this.pages.push(page);
    return page;
  }

  /** Runs a suite of the extension host in a window. Calls `meanwhile` with the window once that is open. */
  async suite(name, { folder, meanwhile = async () => undefined, ms = 120_000 } = {}) {
    writeFileSync(path.join(this.home, 'suite'), name);
    const page = await this.window({ folder, tests: path.join(extension, 'dist/test/extension-host.js') });
    const limit = new Promise((resolve) => setTimeout(resolve, ms, `not done in ${ms} ms`));
    const told = meanwhile(page).then(() => 0, (error) => error);
    const failed = new Promise((resolve) => void told.then((error) => error && resolve(error)));
    const result = (await Promise.race([page.finished, limit, failed])) || (await told);
    for (const message of page.messages) {
      if (/Extension Host/.test(message) || result !== 0) console.log(' ', message.replace(/^.*?Extension Host\S* */, ''));
    }
    if (result !== 0) {
      await page.screenshot({ path: path.join(extension, 'dist/failed.png') });
      throw new Error(`${name} failed`, { cause: result });
    }
    return page;
  }

  /** The processes of the binary in this world, except the platform, each as "pid arguments". */
  processes() {
    return readdirSync('/proc')
      .filter((pid) => /^\d+$/.test(pid))
      .flatMap((pid) => {
        try {
          const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
          const ours = readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`HOME=${this.home}\0`);
          return ours && args[0].endsWith('/labctl-ssh-proxy') && !args.includes('serve') ? [`${pid} ${args.slice(1).join(' ')}`] : [];
        } catch {
          return [];
        }
      });
  }

  /** The possible leftovers of a test: processes of the binary, listeners, files of the binary and the extension. */
  leftovers() {
    const own = readdirSync('/proc').filter((pid) => {
      try {
        return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`HOME=${this.home}\0`);
      } catch {
        return false;
      }
    });
    const sockets = new Set(own.flatMap((pid) => {
      try {
        return readdirSync(`/proc/${pid}/fd`).map((fd) => /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]);
      } catch {
        // The process has ended, or has just closed one.
        return [];
      }
    }));
    // proc(5): state 0A is listening; of a Unix socket, the flag 0x10000.
    const tcp = ['tcp', 'tcp6'].flatMap((name) => readFileSync(`/proc/net/${name}`, 'utf8').trim().split('\n').slice(1))
      .map((line) => line.trim().split(/\s+/)).filter((of) => of[3] === '0A' && sockets.has(of[9])).map((of) => of[1]);
    const unix = readFileSync('/proc/net/unix', 'utf8').trim().split('\n').slice(1)
      .map((line) => line.trim().split(/\s+/)).filter((of) => of[3] === '00010000' && sockets.has(of[6])).map((of) => of[7] ?? of[6]);
    // Not counted: the disks of playgrounds, and logs, one file a connection, of which old ones are removed.
    const ours = (folder) => {
      try {
        const all = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => !entry.isDirectory());
        return all.map((entry) => path.join(entry.parentPath, entry.name));
      } catch {
        return [];
      }
    };
    const files = [path.join(this.home, '.iximiuz'), path.join(this.home, '.ssh'), path.join(this.home, 'user/User/globalStorage')].flatMap(ours)
      .filter((file) => !/\/labctl-ssh-proxy\/(local|logs)\//.test(file) && !/\/(state\.vscdb.*|storage\.json)$/.test(file));
    const temporary = ours(path.join(this.home, 'tmp')).filter((file) => !/vscode|code-server/.test(path.basename(file)));
    // VS Code keeps a socket for each terminal, even after that is closed.
    const listeners = [...tcp, ...unix].filter((one) => !path.basename(one).startsWith('vscode-')).sort();
    return { processes: this.processes(), listeners, files: [...files, ...temporary].sort() };
  }

  async end() {
    await this.browser?.close();
    if (this.server) process.kill(-this.server.pid, 'SIGKILL');
    await this.run('local', 'stop').catch(() => undefined);
    this.platform.kill('SIGKILL');
    rmSync(this.home, { recursive: true, force: true, maxRetries: 5 });
  }
}
