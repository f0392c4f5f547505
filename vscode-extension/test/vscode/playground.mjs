// What a user does with one playground, in a real VS Code: its ports, its machines, the tasks of a challenge. The judges of the
// effects are the program's own commands, HTTP requests, and an ssh session that ends with its machine.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { answer, button, collapse, command, expand, menu, picture, row, rows, sees, text, widen } from './hands.mjs';
import { World, extension, showView, until } from './world.mjs';

let page;
const world = new World(['--boot-delay', '1s']);

/** Waits for a line of the view that matches all of these. */
const line = (what, ...words) => sees(page, what, async () => (await rows(page)).some((one) => words.every((word) => word.test(one))), 30_000);
const noLine = (what, ...words) => sees(page, what, async () => !(await rows(page)).some((one) => words.every((word) => word.test(one))), 30_000);
const dismiss = async () => {
  const clear = page.locator('.notification-toast .codicon-notifications-clear').first();
  await clear.click({ timeout: 2000 }).catch(() => undefined);
};

/** Runs a command in a machine, until it prints its first line. */
async function inside(host, script) {
  const child = spawn('ssh', ['-F', path.join(world.home, '.ssh/config'), host, script], { env: world.env, stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const said = new Promise((resolve) => child.stdout.once('data', (data) => resolve(String(data).trim())));
  const first = await Promise.race([said, ended.then(() => undefined)]);
  assert.ok(first !== undefined, `ssh ${host} has ended`);
  return { child, said: first, ended };
}

/** A server of Node.js at this port of the machine, or at a free one. Prints the port. */
const serve = (make, port) => {
  const listen = `s.once("error", () => s.listen(0)).listen(${port})`;
  return `exec ${process.execPath} -e 'const s = ${make}; s.once("listening", () => console.log(s.address().port)); ${listen}'`;
};
const HTTP = 'require("http").createServer((q, a) => a.end("hello"))';
const TCP = 'require("net").createServer((c) => c.on("error", () => {}).end("hello\\n"))';

async function ports(id) {
  const [{ machines }] = await world.list();
  const portOf = async (number) => JSON.parse(await world.run('ports', id, '--json')).ports.find((one) => one.number === Number(number));

  console.log('- ports: a server on a machine shows once they are expanded');
  const server = await inside(machines[0].host, serve(HTTP, 8080));
  const other = await inside(machines[1].host, serve(TCP, 5432));
  const number = new RegExp(`^${server.said}(?!\\d)`);
  await expand(row(page, 'Two machines').first());
  await line('the ports', /^Ports/);
  assert.ok(!(await rows(page)).some((one) => number.test(one)));
  await expand(row(page, 'Ports').first());
  await line('both servers', number, /node-01 · http/);
  await line('the other one', new RegExp(`^${other.said}`), /node-02 · tcp/);

  console.log('- a port: forwarded, and not any more');
  await menu(page, row(page, server.said).first(), 'Forward Port');
  await line('its address', number, /at localhost:\d+/);
  const shown = (await rows(page)).find((one) => number.test(one));
  const forwarded = /localhost:(\d+)/.exec(shown)[1];
  assert.equal(await (await fetch(`http://127.0.0.1:${forwarded}/`)).text(), 'hello');
  await button(row(page, server.said).first(), 'Stop Forwarding Port');
  await noLine('no address', number, /localhost/);
  await until('nothing listens', () => fetch(`http://127.0.0.1:${forwarded}/`).then(() => false, () => true));

  console.log('- a port: exposed for the user, hidden, exposed for everyone after a yes');
  await menu(page, row(page, server.said).first(), 'Expose Port Privately');
  await line('it is exposed', number, /exposed/);
  assert.deepEqual((await portOf(server.said)).exposed.map((one) => one.access), ['private']);
  await text(page, `is exposed for you`);
  await dismiss();
  await button(row(page, other.said).first(), 'Forward Port');
  await line('the other one is forwarded', new RegExp(`^${other.said}`), /localhost/);
  await button(row(page, other.said).first(), 'Stop Forwarding Port');
  await button(row(page, server.said).first(), 'Hide from the Web');
  await noLine('it is hidden', number, /exposed/);
  assert.deepEqual((await portOf(server.said)).exposed, []);
  await menu(page, row(page, server.said).first(), 'Expose Port Publicly...');
  await answer(page, 'Cancel');
  assert.deepEqual((await portOf(server.said)).exposed, []);
  await menu(page, row(page, server.said).first(), 'Expose Port Publicly...');
  await answer(page, 'Expose Publicly');
  await line('it is public', number, /public/);
  assert.deepEqual((await portOf(server.said)).exposed.map((one) => one.access), ['public']);
  await dismiss();

  console.log('- a server that has ended');
  server.child.kill();
  await server.ended;
  await button(row(page, 'Ports').first(), 'Scan Ports Again');
  await line('nothing listens', number, /not listening/);
  await button(row(page, server.said).first(), 'Hide from the Web');
  await noLine('it goes', number);
  other.child.kill();

  console.log('- hidden ports are not scanned');
  await collapse(row(page, 'Ports').first());
  await sees(page, 'only the watch', () => world.processes().length === 1);
}

async function machines(id) {
  const [{ machines: [, second] }] = await world.list();
  const state = async () => (await world.list()).find((one) => one.id === id).machines[1].state;

  console.log('- a machine: reboot, which ends its sessions');
  const session = await inside(second.host, 'echo in; exec cat');
  await menu(page, row(page, 'node-02').first(), 'Reboot Machine');
  await session.ended;
  await sees(page, 'it is up', async () => (await state()) === 'RUNNING', 30_000);
  await line('it shows', /^node-02/, /running/);
  await sees(page, 'no progress', async () => (await page.locator('.notification-toast', { hasText: 'Rebooting' }).count()) === 0, 30_000);

  console.log('- a machine: its journal and its console, each in a terminal that follows it');
  const screen = page.locator('.terminal-wrapper .xterm-rows').last();
  for (const entry of ['Follow Journal', 'Show Console']) {
    await menu(page, row(page, 'node-02').first(), entry);
    await sees(page, entry, async () => (await screen.innerText()).replaceAll('\u00a0', ' ').includes('its SSH server answers'));
    const kind = entry.split(' ')[1].toLowerCase();
    await sees(page, 'its process', () => world.processes().some((one) => one.includes(`machine ${kind} ${id} node-02 --follow`)));
    await page.locator('.panel').getByRole('button', { name: /Kill Terminal/ }).first().click();
    await sees(page, 'its end', () => !world.processes().some((one) => one.includes('--follow')));
    await sees(page, 'no terminal', async () => (await page.locator('.terminal-wrapper').count()) === 0);
  }

  console.log('- a machine: stopped, while its playground runs on, and started again');
  await menu(page, row(page, 'node-02').first(), 'Stop Machine');
  await line('it is stopped', /^node-02/, /stopped/);
  await line('the playground runs', /^Two machines/, /duo · running/);
  assert.equal(await state(), 'STOPPED');
  await button(row(page, 'node-02').first(), 'Start Machine');
  await line('it runs', /^node-02/, /running/);
  assert.equal(await state(), 'RUNNING');
}

async function challenge() {
  const [{ pageUrl }] = await world.list();
  const address = `${new URL(pageUrl).origin}/challenges/write-a-file`;
  const begin = (reply) => async () => {
    await command(page, 'Start a Playground', { asked: 'paste the address', answer: address });
    await answer(page, reply);
  };
  const play = async () => (await world.list()).find((one) => one.learning?.name === 'write-a-file');

  console.log('- a challenge, by the address of its page: no attempt without a yes');
  await begin('Cancel')();
  assert.equal(await play(), undefined);
  await begin('Begin Attempt')();
  await line('it runs', /challenge · running/);
  await text(page, 'is running.');
  await dismiss();
  const { id, host } = await play();
  await expand(row(page, 'challenge').first());
  await line('its tasks', /^Tasks/, /0\/2 completed/);

  console.log('- its tasks, with a tick for each that is done, and a message when it is solved');
  const file = path.join(world.home, '.iximiuz/labctl-ssh-proxy/local/plays', id, 'shell-01/home/hello.txt');
  writeFileSync(file, 'good morning');
  await line('one is done', /^verify_file/, /completed/);
  await line('the other is not', /^verify_words/, /to do/);
  await line('half', /challenge · running · 1\/2 tasks/);
  const [server, database] = [await inside(host, serve(HTTP, 8080)), await inside(host, serve(TCP, 5432))];
  await expand(row(page, 'Ports').first());
  await line('its ports', new RegExp(`^${server.said}`), /http/);
  await world.run('expose', id, server.said, '--json');
  await button(row(page, database.said).first(), 'Forward Port');
  await button(row(page, 'Ports').first(), 'Scan Ports Again');
  await line('one is exposed', /exposed/);
  // Away from the lines, and without a selection.
  await page.mouse.click(300, 500);
  await page.mouse.move(900, 560);
  await picture(page, 'inside', { x: 0, y: 0, width: 520, height: 300 });
  assert.ok(!(await page.locator('body').innerText()).includes('You have solved'));
  writeFileSync(file, 'hello');
  await text(page, 'You have solved the challenge Write a File.', 30_000);
  await line('both', /challenge · running · 2\/2 tasks/);
  await dismiss();

  console.log('- its stop ends the attempt, after a question');
  for (const one of [server, database]) one.child.kill();
  for (const [reply, goesOn] of [['Cancel', true], ['End Attempt', false]]) {
    await button(row(page, 'challenge').first(), 'Stop');
    await text(page, 'This ends your attempt at the challenge, and its playground will be erased.');
    await answer(page, reply);
    await sees(page, 'the answer holds', async () => ((await play()) !== undefined) === goesOn, 30_000);
  }
  await noLine('it goes', /challenge/);
}

async function choices() {
  console.log('- a start with choices');
  const value = (asked, answer) => ({ asked: `"${asked}"`, answer });
  await command(page, 'Start a Playground', { asked: 'Select a playground to start', answer: 'start with choices' },
    value('Container runtime', 'docker'), value('Team', 'red'));
  await line('it runs', /choices · running/);
  const { id } = (await world.list()).find((one) => one.playground.name === 'choices');
  const said = JSON.parse(await world.run('tasks', id, '--json'));
  assert.ok(said.length > 0 && said.filter((one) => one.init).every((one) => one.status === 'completed'), JSON.stringify(said));
}

try {
  await world.start();
  page = await world.window();
  page.setDefaultTimeout(15_000);
  await showView(page);
  await widen(page);
  await world.run('config-ssh', '--yes');
  await world.run('start', 'duo', '--json', '--title', 'Two machines');
  const [{ id }] = await world.list();
  await line('it runs', /^Two machines/, /running/);
  await ports(id);
  await machines(id);
  await collapse(row(page, 'Two machines').first());
  await challenge();
  await choices();
  await page.close();
  await until('no process', () => world.processes().length === 0, 20_000);
} catch (error) {
  console.error(error, page?.messages.slice(-20));
  if (page && !page.isClosed()) await page.screenshot({ path: path.join(extension, 'dist/failed.png') });
  process.exitCode = 1;
} finally {
  await world.end();
}
process.exit();
