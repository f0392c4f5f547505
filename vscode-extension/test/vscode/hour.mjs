// An hour of use in a minute: windows that open, reload and close. In each of them the view, port-forwards, terminals, stops
// and starts, several times over. Afterwards there is no process, listener or file that was not there after the first window.
// The figures are at the end of README.md.
import assert from 'node:assert/strict';
import path from 'node:path';
import { World, extension, showView } from './world.mjs';

const WINDOWS = Number(process.env.WINDOWS ?? 3);
const RELOADS = 3;

const world = new World();
let page;
try {
  await world.start();
  await world.run('start', 'shell', '--json', '--title', 'One');
  await world.run('config-ssh', '--yes');
  const settled = async (what, fits) => {
    let found;
    for (let attempt = 0; attempt < 200; attempt += 1) {
      found = world.leftovers();
      if (fits(found)) return found;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`${what}: ${JSON.stringify(found, null, 2)}`);
  };
  const before = world.leftovers();
  let first;
  for (let i = 0; i < WINDOWS; i += 1) {
    page = await world.suite('rounds');
    await page.close();
    page = await world.window();
    page.setDefaultTimeout(30_000);
    // A window is closed only once its view is there: on a busy machine, one that went while it loaded ran on for over 20 s.
    for (let reload = 0; reload <= RELOADS; reload += 1) {
      if (reload > 0) await page.reload();
      const one = page.locator('.pane-body .monaco-list-row', { hasText: 'One' }).first();
      await showView(page);
      await one.waitFor();
    }
    await page.close();
    const now = await settled('nothing runs and listens', (one) =>
      one.processes.length === 0 && one.listeners.length === before.listeners.length);
    first ??= now;
    assert.deepEqual(now.files, first.files);
  }
  const counts = ({ processes, listeners, files }) => `${processes.length} processes, ${listeners.length} listeners, ${files.length} files`;
  console.log(`- before the first window: ${counts(before)}`);
  const made = first.files.filter((file) => !before.files.includes(file)).map((file) => path.basename(file));
  console.log(`- after window 1: ${counts(first)}; new: ${made.join(', ')}`);
  console.log(`- after window ${WINDOWS}: ${counts(world.leftovers())}`);
} catch (error) {
  console.error(error);
  if (page && !page.isClosed()) await page.screenshot({ path: path.join(extension, 'dist/failed.png') });
  process.exitCode = 1;
} finally {
  await world.end();
}
process.exit();
