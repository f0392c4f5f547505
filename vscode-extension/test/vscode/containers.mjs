// The containers of a machine in a real VS Code, with a real Docker Engine. The judges are docker's own client, OpenSSH, HTTP
// requests, and the window's address.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { Engine } from './engine.mjs';
import { answer, button, collapse, expand, menu, pick, picture, row, rows, sees, text, widen } from './hands.mjs';
import { World, extension, showView, until } from './world.mjs';

if (!Engine.canRun) process.exit();
let page;
let world;
const engine = new Engine();

/** The line of a container. */
const container = (name) => page.locator(`.pane-body .monaco-list-row[aria-label^="Container ${name},"]`);
const line = (name, words) => sees(page, `${name}: ${words}`, async () => (await container(name).count()) === 1 && words.test(await container(name).innerText()), 30_000);
const watches = () => world.processes().filter((one) => one.includes(' containers '));
const noWatch = (what) => sees(page, what, () => watches().length === 0);
const screen = () => page.locator('.terminal-wrapper .xterm-rows').last();
const shown = async () => (await screen().innerText()).replaceAll('\u00a0', ' ').trim();
const dismiss = () => page.locator('.notification-toast .codicon-notifications-clear').first().click({ timeout: 2000 }).catch(() => undefined);

function runContainers() {
  engine.image('shop/web:1.4', { shell: true, changes: ['EXPOSE 80'] });
  engine.image('shop/api:2.0', { shell: false, changes: ['EXPOSE 8000', 'USER 65532', 'CMD ["httpd", "-f", "-p", "8000"]'] });
  const run = (name, options, image, ...command) => engine.docker('run', '--name', name, ...options, image, ...command);
  run('web', ['-d', '-p', '127.0.0.1:8080:80'], 'shop/web:1.4');
  run('api', ['-d', '--read-only', '--cap-drop=all'], 'shop/api:2.0');
  run('cache', ['-d'], 'shop/web:1.4');
  engine.docker('pause', 'cache');
  run('queue', ['-d', '--health-cmd=false', '--health-start-period=1h', '--health-interval=1s'], 'shop/web:1.4');
  run('migrate', [], 'shop/web:1.4', 'true');
  assert.throws(() => run('worker', [], 'shop/web:1.4', 'sh', '-c', 'exit 3'));
}

async function live() {
  console.log('- nothing is asked while no machine is open');
  await expand(row(page, 'Shop').first());
  await sees(page, 'the machine', async () => (await rows(page)).some((one) => one.startsWith('shell-01')));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  assert.equal(world.processes().length, 1);
  assert.match(world.processes()[0], / list --watch --json/);

  console.log('- a machine: its containers, those that run first');
  await expand(row(page, 'shell-01').first());
  await line('web', /running · shop\/web:1\.4 · 127\.0\.0\.1:8080→80$/);
  await line('api', /running · shop\/api:2\.0/);
  await line('queue', /running · shop\/web:1\.4/);
  await line('cache', /paused/);
  await line('migrate', /exited · shop/);
  await line('worker', /exited \(3\) · shop/);
  const names = async () => (await page.locator('.pane-body .monaco-list-row[aria-label^="Container "]').all()).map((one) => one.getAttribute('aria-label'));
  const order = (await Promise.all(await names())).map((one) => /^Container (.*?),/.exec(one)[1]);
  assert.deepEqual(order, ['api', 'queue', 'web', 'cache', 'migrate', 'worker']);
  assert.equal(watches().length, 1);

  console.log('- what docker does shows while the machine is open');
  engine.docker('run', '-d', '--name', 'mailer', 'shop/api:2.0');
  console.log(`  a container that was started showed after ${await line('mailer', /running/)} ms`);
  engine.docker('kill', 'mailer');
  console.log(`  its end showed after ${await line('mailer', /exited \(137\)/)} ms`);
  engine.docker('rm', 'mailer');
  await sees(page, 'it goes', async () => (await container('mailer').count()) === 0);
  await page.mouse.click(300, 560);
  await page.mouse.move(900, 560);
  await page.waitForTimeout(500);
  await picture(page, 'containers', { x: 0, y: 0, width: 520, height: 240 });

  console.log('- a machine that is closed, and a hidden view, cost nothing');
  await collapse(row(page, 'shell-01').first());
  await noWatch('the machine is closed');
  await expand(row(page, 'shell-01').first());
  await line('web', /running/);
  await collapse(row(page, 'Shop').first());
  await noWatch('the playground is closed');
  await expand(row(page, 'Shop').first());
  // VS Code closes the machine as well if it has loaded the playground meanwhile.
  const isOpen = async () => (await row(page, 'shell-01').first().getAttribute('aria-expanded', { timeout: 2000 }).catch(() => '')) === 'true';
  await sees(page, 'the machine', async () => (await rows(page)).some((one) => one.startsWith('shell-01')));
  await sees(page, 'a watch if it is open', async () => (watches().length === 1) === (await isOpen()));
  await page.getByRole('button', { name: 'Collapse All' }).first().click();
  await noWatch('all is closed');
  await expand(row(page, 'Shop').first());
  await sees(page, 'the machine', async () => (await rows(page)).some((one) => one.startsWith('shell-01')));
  await page.waitForTimeout(1000);
  assert.deepEqual([watches().length, await isOpen()], [0, false]);
  await expand(row(page, 'shell-01').first());
  await line('web', /running/);
  await page.locator('.activitybar [aria-label*="Explorer"]').first().click();
  await sees(page, 'no process', () => world.processes().length === 0);
  await showView(page);
  await line('web', /running/);
}

async function use() {
  const host = `${(await world.list())[0].machines[0].host}.web`;
  const noTerminal = async () => {
    await page.locator('.panel').getByRole('button', { name: /Kill Terminal/ }).first().click({ timeout: 2000 }).catch(() => undefined);
    await sees(page, 'no terminal', async () => (await page.locator('.terminal-wrapper').count()) === 0);
  };

  console.log('- a terminal is inside');
  await button(container('web').first(), 'Open Terminal');
  await sees(page, 'a prompt', async () => /[$#]$/.test(await shown()), 30_000);
  await page.locator('.terminal-wrapper .xterm-screen').last().click();
  await page.keyboard.type('ps; cat index.html\n');
  await sees(page, 'a file of the container', async () => (await shown()).includes('hello from shop/web:1.4'));
  await page.mouse.move(900, 300);
  await page.waitForTimeout(500);
  // It is in the repository's docs, and not in the package.
  await picture(page, 'vscode-containers', undefined, process.env.PICTURES && path.join(extension, '../docs/images'));
  await page.keyboard.type('hostname > told; pwd >> told; exit\n');
  const told = () => {
    try {
      return engine.docker('exec', 'web', 'cat', '/srv/told').split('\n');
    } catch {
      return [];
    }
  };
  await sees(page, 'what the shell had', () => told().length === 2);
  assert.deepEqual(told(), [engine.docker('inspect', '--format', '{{.Config.Hostname}}', 'web'), '/srv']);
  await noTerminal();

  console.log('- a terminal in a container without a shell has one that is lent, and its own user and files');
  await button(container('api').first(), 'Open Terminal');
  await sees(page, 'a prompt', async () => /[$#]$/.test(await shown()), 30_000);
  await page.locator('.terminal-wrapper .xterm-screen').last().click();
  await page.keyboard.type('id -u; ls /bin; cat index.html\n');
  await sees(page, 'what is there', async () => /65532\s+httpd\s+hello from shop\/api:2\.0/.test(await shown()));
  await page.keyboard.type('exit\n');
  await noTerminal();

  console.log('- the ssh command, by OpenSSH');
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await menu(page, container('web').first(), 'Copy SSH Command');
  await text(page, 'SSH command copied to the clipboard');
  const command = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(command, `ssh ${host}`);
  const { stdout } = await promisify(execFile)('ssh', ['-F', path.join(world.home, '.ssh/config'), ...command.split(' ').slice(1), 'cat', 'index.html'], { env: world.env });
  assert.equal(stdout, 'hello from shop/web:1.4\n');

  console.log('- a port that only the container sees, in the browser');
  const opened = page.context().waitForEvent('page', { timeout: 30_000 });
  await menu(page, container('api').first(), 'Forward a Port...');
  await sees(page, 'its ports', async () => /8000[^]*Another port/.test(await page.locator('.quick-input-widget').innerText()));
  await pick(page, '8000');
  const tab = await opened;
  await tab.waitForLoadState();
  assert.equal((await tab.locator('body').innerText()).trim(), 'hello from shop/api:2.0');
  await tab.close();
  await sees(page, 'its line', async () => (await rows(page)).some((one) => /localhost:\d+to port 8000 of api/.test(one.replaceAll('\n', ''))));
  await button(row(page, 'of api').first(), 'Stop Forwarding Port');
  await sees(page, 'it goes', () => !world.processes().some((one) => one.includes('port-forward')));

  console.log('- open: a word about trust, once for each image, and the folder of the container');
  for (const reply of ['Cancel', 'Open']) {
    await menu(page, container('web').first(), 'Open in This Window');
    await text(page, 'An editor trusts what runs in a container as it trusts any remote');
    await answer(page, reply);
    // A dialog that is closed has to be gone before the next is looked for.
    await sees(page, 'no question', async () => (await page.locator('.monaco-dialog-box').count()) === 0);
  }
  // In a browser the authority is always that of the server. test/unit checks the whole URI.
  await sees(page, 'the address', () => new URL(page.url()).searchParams.get('folder') === '/srv', 30_000);
}

try {
  await engine.start();
  runContainers();
  world = new World(['--boot-delay', '1s', '--engine', engine.socket]);
  await world.start();
  page = await world.window();
  page.setDefaultTimeout(15_000);
  await showView(page);
  await widen(page);
  await world.run('config-ssh', '--yes');
  await world.run('start', 'shell', '--json', '--title', 'Shop');
  await sees(page, 'it runs', async () => (await rows(page)).some((one) => /^Shop[^]*running/.test(one)), 30_000);
  await live();
  await use();
  await dismiss();
  await page.close();
  await until('no process', () => world.processes().length === 0, 20_000);
  console.log('- nothing is left in the containers');
  assert.equal(engine.docker('diff', 'api'), '');
} catch (error) {
  console.error(error, page?.messages.slice(-20));
  if (page && !page.isClosed()) await page.screenshot({ path: path.join(extension, 'dist/failed.png') });
  process.exitCode = 1;
} finally {
  await world?.end();
  await engine.end();
}
process.exit();
