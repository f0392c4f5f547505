// The first minutes of a user: a new profile of a real VS Code, no program, no settings. From the walkthrough to a terminal in a
// playground by clicks only. The program is downloaded from a release on a local server, and the login is confirmed in Chromium.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import path from 'node:path';
import { pick, picture, sees, text } from './hands.mjs';
import { World, binary, extension, freePort, showView, until } from './world.mjs';

const port = await freePort();
const world = new World(['--listen', `127.0.0.1:${port}`]);
const at = (...names) => path.join(world.home, ...names);
const manifest = JSON.parse(readFileSync(path.join(extension, 'package.json'), 'utf8'));
const WHOLE = { x: 0, y: 0, width: 1100, height: 700 };
const dist = path.join(extension, 'dist');
let page, server;

/** Serves a release as GitHub has it below a repository: the archive that scripts/package makes of the program. */
async function release() {
  const folder = at('release');
  mkdirSync(folder);
  const program = at('release/labctl-ssh-proxy');
  execFileSync('strip', ['-o', program, binary]);
  execFileSync(path.resolve(extension, '../scripts/package'), [program, folder], { env: world.env, stdio: ['ignore', 'ignore', 'inherit'] });
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
    '-addext', 'subjectAltName=DNS:localhost', '-keyout', at('key'), '-out', at('cert')], { stdio: 'ignore' });
  const asked = [];
  server = createServer({ key: readFileSync(at('key')), cert: readFileSync(at('cert')) }, (request, answer) => {
    asked.push(request.url);
    const file = path.join(folder, path.basename(request.url));
    if (existsSync(file)) answer.end(readFileSync(file));
    else answer.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { program, asked, repository: `https://localhost:${server.address().port}/ada/labctl-ssh-proxy` };
}

/** The address of the login, as the extension's log has it. */
function addressInLog() {
  const file = readdirSync(at('user/logs'), { recursive: true }).find((name) => name.endsWith('Playgrounds.log'));
  return /http:\S+\/confirm\/\S+/.exec(readFileSync(at('user/logs', file), 'utf8'))[0];
}

const step = (title) => page.locator('.getting-started-step', { hasText: title });

/** Clicks a step of the walkthrough and then its button. */
async function take(title, button) {
  await until(`${title} is shown`, async () => {
    await step(title).first().click({ timeout: 2000 }).catch(() => undefined);
    return step(title).first().getByRole('button', { name: button, exact: true }).isVisible();
  });
  await step(title).first().getByRole('button', { name: button, exact: true }).click();
}

const isDone = (title) => async () => (await step(title).first().locator('.codicon-getting-started-step-checked').count()) > 0;
const done = (title, ms) => sees(page, `${title} is done`, isDone(title), ms);

try {
  world.env.PATH = '/usr/bin:/bin';
  for (const folder of ['/usr/local/bin', '/usr/bin']) assert.ok(!existsSync(path.join(folder, 'labctl-ssh-proxy')), folder);
  const { program, asked, repository } = await release();
  world.env.NODE_EXTRA_CA_CERTS = at('cert');
  // The platform whose port asks for a login.
  mkdirSync(at('.iximiuz/labctl'), { recursive: true });
  writeFileSync(at('.iximiuz/labctl/config.yaml'), `base_url: http://127.0.0.1:${port}\n`, { mode: 0o600 });
  await world.start({
    // An old VS Code that takes the system's certificates does not take those of Node's variable.
    settings: { 'playgrounds.local': undefined, 'playgrounds.binary': undefined, 'remote.autoForwardPorts': false, 'http.systemCertificates': false },
    // As scripts/publisher writes it.
    edit: (one) => ({ ...one, repository: { type: 'git', url: `${repository}.git`, directory: 'vscode-extension' } }),
  });
  // The user's own credentials, for which the page of the login asks.
  const [owner] = JSON.parse(readFileSync(at('.iximiuz/labctl-ssh-proxy/local/credentials.json'), 'utf8'));
  page = await world.window({ height: 700, httpCredentials: { username: owner.id, password: owner.accessToken } });
  page.setDefaultTimeout(15_000);

  console.log('- the walkthrough opens from the view');
  await showView(page);
  await text(page, 'was not found');
  await page.locator('.welcome-view').getByRole('button', { name: 'Get Started', exact: true }).click();
  await step('Get the program').first().waitFor();
  // VS Code 1.85 marks a step as done when it is shown.
  if (!process.env.CODE_SERVER) assert.equal(await isDone('Get the program')(), false);

  console.log('- the program is downloaded and verified');
  await picture(page, 'first-1-program', WHOLE, dist);
  await take('Get the program', 'Download');
  await done('Get the program', 60_000);
  const copy = at('.iximiuz/labctl-ssh-proxy/bin/labctl-ssh-proxy');
  await until('the program is there', () => existsSync(copy), 60_000);
  assert.deepEqual(readFileSync(copy), readFileSync(program));
  assert.equal(statSync(copy).mode & 0o777, 0o700);
  assert.ok(asked.every((url) => url.startsWith(`/ada/labctl-ssh-proxy/releases/download/v${manifest.version}/labctl-ssh-proxy-`)), String(asked));

  console.log('- the login is confirmed in a browser');
  if (!process.env.CODE_SERVER) assert.equal(await isDone('Log in')(), false);
  const [opened] = await Promise.all([page.waitForEvent('popup', { timeout: 30_000 }), take('Log in', 'Log In')]);
  await opened.getByText(/The login is confirmed|does not have GET/).waitFor();
  // An old code-server drops the path of the address, so that the user opens the one in the log.
  if (await opened.getByText('does not have GET').isVisible()) await opened.goto(addressInLog());
  await opened.getByText('The login is confirmed.').waitFor();
  await opened.close();
  await text(page, 'You have no playgrounds.', 30_000);
  await done('Log in');

  console.log('- the ssh configuration');
  await take('Add your playgrounds', 'Add to SSH Configuration');
  await done('Add your playgrounds', 30_000);
  await until('it is written', () => existsSync(at('.ssh/config')));
  assert.match(readFileSync(at('.ssh/config'), 'utf8'), /Include .*labctl-ssh-proxy\/ssh_config/);
  await picture(page, 'walkthrough', { x: 440, y: 70, width: 560, height: 500 });

  console.log('- the first playground');
  await take('Start your first playground', 'Start a Playground...');
  await page.locator('.quick-input-list .monaco-list-row').first().click();
  await text(page, 'is running.', 30_000);
  await done('Start your first playground');

  console.log('- a terminal in it');
  await page.locator('.notification-toast').getByRole('button', { name: 'Open Terminal', exact: true }).click();
  const screen = page.locator('.terminal-wrapper .xterm-rows');
  await sees(page, 'a prompt', async () => /[$#] *$/.test((await screen.innerText()).trim()), 30_000);
  const [play] = await world.list();
  assert.ok(world.processes().some((line) => line.includes(`connect`) && line.includes(play.id)), String(world.processes()));
  await picture(page, 'first-2-terminal', WHOLE, dist);

  console.log('- the menu of the remote indicator leads there, too');
  await page.locator('[id="status.host"]').click();
  for (const words of ['Connect to Playground...', play.id, 'Open Terminal']) await pick(page, words);
  await sees(page, 'another connection', () => world.processes().filter((line) => line.includes('connect') && line.includes(play.id)).length === 2, 30_000);
} catch (error) {
  console.error(error, page?.messages.slice(-20));
  if (page && !page.isClosed()) await page.screenshot({ path: path.join(extension, 'dist/failed.png') });
  process.exitCode = 1;
} finally {
  server?.close();
  server?.closeAllConnections();
  await world.end();
}
process.exit();
