// A platform's package in a real VS Code, on a computer without the program: packed.mjs VSIX. The view shows playgrounds,
// ssh works by the copy that the extension has made, and an uninstallation takes all of it back.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { World, showView, until } from './world.mjs';

const [vsix] = process.argv.slice(2);
const world = new World();
// Only folders of the system, and a computer on which nothing is installed for all users.
world.env.PATH = '/usr/bin:/bin';
const copy = path.join(world.home, '.iximiuz/labctl-ssh-proxy/bin/labctl-ssh-proxy');
try {
  for (const folder of ['/usr/local/bin', '/usr/bin']) assert.ok(!existsSync(path.join(folder, 'labctl-ssh-proxy')), folder);
  await world.start({ vsix, settings: { 'playgrounds.binary': '' } });
  await world.run('start', 'shell', '--json', '--title', 'Compose trial');
  assert.ok(!existsSync(copy));

  console.log('- the view works without an installed program');
  let page = await world.window();
  await showView(page);
  await page.locator('.pane-body .monaco-list-row', { hasText: 'Compose trial' }).first().waitFor({ timeout: 30_000 });
  const [{ relativeLocation }] = JSON.parse(readFileSync(path.join(world.home, 'ext/extensions.json'), 'utf8'));
  assert.deepEqual(readFileSync(copy), readFileSync(path.join(world.home, 'ext', relativeLocation, 'bin/labctl-ssh-proxy')));
  const runs = world.processes().map((line) => realpathSync(`/proc/${line.split(' ')[0]}/exe`));
  assert.deepEqual([...new Set(runs)], [copy]);

  console.log('- ssh works by the copy');
  execFileSync(copy, ['--local', 'config-ssh', '--yes'], { env: world.env });
  const config = path.join(world.home, '.ssh/config');
  const [{ host }] = await world.list();
  assert.match(readFileSync(path.join(world.home, '.iximiuz/labctl-ssh-proxy/ssh_config'), 'utf8'), new RegExp(`ProxyCommand ${copy} `));
  assert.equal(execFileSync('ssh', ['-F', config, host, 'echo hello'], { env: world.env, encoding: 'utf8' }), 'hello\n');
  await page.close();
  await until('the window has ended its processes', () => world.processes().length === 0, 60_000);

  console.log('- an uninstallation takes it back');
  await world.uninstall();
  await until('the copy has gone', () => !existsSync(path.dirname(copy)), 60_000);
  assert.ok(!existsSync(config) || !readFileSync(config, 'utf8').includes('labctl-ssh-proxy'));
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await world.end();
}
process.exit();
