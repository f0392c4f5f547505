// The packed extension in a real VS Code's extension host, and windows of playgrounds.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pick, picture } from './hands.mjs';
import { World, until } from './world.mjs';

/** The part of the window that shows questions. */
const QUESTION = { x: 200, y: 0, width: 700, height: 140 };
/** The part of the window that shows notifications. */
const CORNER = { x: 600, y: 440, width: 500, height: 200 };

function many() {
  const one = (i) => {
    const id = i.toString(16).padStart(24, '0');
    const state = i % 5 === 4 ? 'RUNNING' : 'STOPPED';
    const host = `playground-${id}`;
    const machine = { name: 'node-01', host: `${host}.node-01`, state, ready: state === 'RUNNING', users: [{ name: 'root' }] };
    return { id, title: `Playground ${i}`, state, playground: { name: 'k3s', title: 'K3s', owner: '' }, machines: [machine], expiresIn: 600 * i, pageUrl: '', host, connections: [] };
  };
  return JSON.stringify({ type: 'playgrounds', playgrounds: Array.from({ length: 500 }, (_, i) => one(i)) });
}

async function plain() {
  const world = new World();
  try {
    await world.start();
    writeFileSync(path.join(world.home, 'many.jsonl'), `${many()}\n`);
    await world.run('start', 'shell', '--json', '--title', 'One');
    await world.run('start', 'duo', '--json', '--title', 'Two');
    const page = await world.suite('plain');
    assert.match(world.settingsText(), /This comment stays[^]*remote.SSH.connectTimeout[^]*remote.SSH.remotePlatform/);
    await page.close();
    await until('no process is left', () => world.processes().length === 0, 20_000);
  } finally {
    await world.end();
  }
}

async function windows() {
  const world = new World();
  try {
    await world.start();
    await world.run('start', 'shell', '--json', '--title', 'Compose trial');
    await world.reboot('--boot-delay', '25s');
    const [{ host }] = await world.list();
    const toast = (page) => page.locator('.notification-toast').first();

    console.log('- cancel ends the wait');
    let page = await world.suite('cancelled', {
      meanwhile: async (page) => {
        await until('progress', async () => (await toast(page).innerText({ timeout: 20_000 })).includes('Waking'), 30_000);
        await page.getByRole('button', { name: 'Cancel' }).click();
      },
    });
    await page.close();
    await world.reboot('--boot-delay', '25s');

    console.log('- a stopped playground with a boot delay of 25 s');
    page = await world.suite('prewake', {
      meanwhile: async (page) => {
        await until('progress', async () => (await toast(page).innerText({ timeout: 20_000 })).includes('Waking'), 30_000);
        await new Promise((resolve) => setTimeout(resolve, 7_000));
        await picture(page, 'waking', CORNER);
      },
    });
    await page.close();
    await world.reboot();

    console.log('- stopped on purpose: asked, no, then yes');
    const [{ id }] = await world.list();
    await world.run('start', id, '--json');
    await world.run('stop', id);
    page = await world.suite('asked', {
      meanwhile: async (page) => {
        const answer = (words) => page.locator('.quick-input-list .monaco-list-row', { hasText: words });
        await answer('Leave Stopped').waitFor();
        await until('the answer is no', async () => {
          if (existsSync(path.join(world.home, 'answered'))) return true;
          await answer('Leave Stopped').click({ timeout: 2000 }).catch(() => undefined);
          await page.waitForTimeout(1000);
          return false;
        }, 30_000);
        await answer('Start').waitFor();
        await picture(page, 'asked', QUESTION);
        await pick(page, 'Start');
      },
    });
    await page.close();

    console.log('- the status bar: figures, a warning, the end');
    await world.run('config-ssh', '--yes');
    const config = path.join(world.home, '.ssh/config');
    const ssh = spawn('ssh', ['-F', config, host, 'while :; do head -c 200000 /dev/zero; sleep 0.1; done'], { env: world.env, stdio: ['pipe', 'ignore', 'inherit'] });
    page = await world.suite('inside', {
      meanwhile: async (page) => {
        try {
          const item = page.locator('.statusbar-item', { hasText: 'Compose trial' });
          await until('figures', async () => /Compose trial · ↓ .*MB\/s ↑ .* · 7h/.test(await item.innerText({ timeout: 30_000 })), 60_000);
          await picture(page, 'statusbar', { x: 0, y: 600, width: 620, height: 40 });
          // This way is short, so only the tooltip has it.
          await until('the latency', async () => {
            await page.mouse.move(600, 300);
            await item.hover();
            return page.locator('.hover-contents', { hasText: /Latency: .*ms/ }).waitFor({ timeout: 3000 }).then(() => true, () => false);
          }, 30_000);
          console.log(`  ${await item.innerText()}`);
          await world.run('stop', id);
          await page.getByRole('button', { name: 'Start and Reload Window' }).waitFor();
        } finally {
          writeFileSync(path.join(world.home, 'enough'), '');
          ssh.kill();
        }
      },
    });
    await page.close();

    console.log('- a warning before the end, with Extend');
    await world.run('start', id, '--json');
    rmSync(path.join(world.home, 'enough'));
    // Longer than the eight hours that it runs.
    world.settings({ 'playgrounds.warnBeforeEnd': 600 });
    const left = async () => (await world.list()).find((one) => one.id === id).expiresIn;
    const before = await left();
    page = await world.suite('inside', {
      meanwhile: async (page) => {
        try {
          const warning = page.locator('.notification-toast', { hasText: /Compose trial (ends|will be stopped|will be erased) in/ });
          await warning.getByRole('button', { name: 'Extend' }).click({ timeout: 30_000 });
          await pick(page, '8 hours');
          await until('eight hours more', async () => (await left()) > before + 7 * 3600);
          await until('the warning has gone', async () => (await warning.count()) === 0);
        } finally {
          writeFileSync(path.join(world.home, 'enough'), '');
        }
      },
    });
    await page.close();
    await until('no process is left', () => world.processes().length === 0, 20_000);
  } finally {
    await world.end();
  }
}

try {
  const suites = { plain, windows };
  for (const name of process.argv[2]?.split(',') ?? Object.keys(suites)) await suites[name]();
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
process.exit();
