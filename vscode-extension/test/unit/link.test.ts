// Links, as an attacker would write them.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import manifest from '../../package.json';
import { openLink } from '../../src/actions/link';
import type { Failure } from '../../src/failure';
import { cloneScript, folderOf, printable, readLink, writeLink } from '../../src/link';
import { commands, user, workspace } from './vscode';
import { acting, folder, listed } from './world';

const ID = '0123456789abcdef01234567';
const REPO = 'https://github.com/ada/notes.git';

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, answers: [], asked: [], details: [], offered: [], cancels: false, clipboard: '' });
  commands.ran = [];
  workspace.workspaceFolders = undefined;
});

const why = (query: string, address = '/open'): string => {
  try {
    return `taken: ${JSON.stringify(readLink(address, query))}`;
  } catch (error) {
    return (error as Failure).message;
  }
};

describe('a link', () => {
  it('names a playground, a folder and a repository', () => {
    expect(readLink('/open', `playground=${ID}`)).toEqual({ playground: ID, isId: true, path: '', repo: '' });
    expect(readLink('/open', `playground=k3s&path=/root/my notes+1&repo=${REPO}`)).toEqual({ playground: 'k3s', isId: false, path: '/root/my notes+1', repo: REPO });
    expect(readLink('/open', 'playground=k3s&path=src/a.b&repo=https://git.example.org:8443/a/~b/c-d/')).toMatchObject({ path: 'src/a.b' });
  });

  it('is read as it was written, decoded once by VS Code', () => {
    const link = { playground: 'k3s', path: '/root/my notes+1', repo: REPO };
    const written = writeLink('vscodium', 'ada.labctl-ssh-proxy', link);
    expect(written).toBe(`vscodium://ada.labctl-ssh-proxy/open?playground=k3s&path=/root/my%20notes%2B1&repo=${REPO}`);
    const { pathname, search } = new URL(written);
    expect(readLink(pathname.replace(/^\/\/[^/]*/, ''), decodeURIComponent(search.slice(1)))).toMatchObject(link);
    expect(manifest.activationEvents).toContain('onUri');
  });

  it.each([
    ['', 'it names no playground'],
    ['path=/x', 'it names no playground'],
    ['playground=', 'it names no playground'],
    ['playground=k3s&playground=docker', 'it has the part playground twice'],
    ['playground=k3s&command=x', 'it has the unknown part "command"'],
    ['playground=k3s&\u202Emoc=x', 'it has the unknown part "moc"'],
    [`playground=k3s&${'x'.repeat(500)}=`, `it has the unknown part "${'x'.repeat(29)}…"`],
    [`playground=k3s&path=/${'x'.repeat(2000)}`, 'it is too long'],
    ...['K3s', '-k3s', '--help', 'a b', 'a/b', '../x', 'playground-k3s.pod.a.b', 'k3s\n', 'k3s;id', '$(id)', 'k\u00e9s', 'k\u202e3s', 'x'.repeat(64), 'https://labs.iximiuz.com/challenges/x'].map((name) => [
      `playground=${name}`, 'its playground is neither an id nor a name of the catalogue',
    ]),
    ...['', '/', '..', '/a/../b', 'a/..', '/a/./b', '~', '~root/x', '/a//b', '-x', '/a/--flags', "/a'b", '/a"b', '/a`id`', '/a$b', '/a;b', '/a|b', '/a\\b', '/a\nb', '/a\0b', '/a\u202Eb', '/a\u200Bb', '/caf\u00e9', '/a%2e%2e', '/a?b', '/a#b', '/a:b', 'file:///etc', '/a<b'].map((name) => [
      `playground=k3s&path=${name}`, 'its path has characters or parts that are not allowed',
    ]),
    ...['', 'http://github.com/a/b', 'git://github.com/a/b', 'ssh://git@github.com/a/b', 'git@github.com:a/b', '/srv/git', 'file:///srv/git', 'ext::sh -c id', 'https://a:b@github.com/a/b', 'https://a@github.com/a',
      'https://github.com', 'https://github.com/', 'https://github.com/a/../b', 'https://github.com/a/b:/etc', 'https://github.com/a/b:.ssh', 'https://github.com/a/-b',
      'https://github.com/a/-b.git', 'https://github.com/a?b', 'https://github.com/a#b', "https://github.com/a'b", 'https://github.com/a b', 'https://github.com/a$(id)', 'https://github.com/a"b', 'https://github.com/a`id`',
      'https://github.com/a\nb', 'https://g\u0456thub.com/a/b', 'https://github.com/\u202Ea', 'HTTPS://github.com/a', 'https://GitHub.com/a/b', '--upload-pack=x', 'https://-x/a', 'https://x-/a', 'https://x..y/a', 'https://[::1]/a', 'https://github.com/a%2fb', 'https://github.com\\@x/a'].map((repo) => [
      `playground=k3s&repo=${repo}`, 'its repository is not a plain https address',
    ]),
    ...['x.code-workspace', '/srv/x.Code-Workspace/'].map((name) => [`playground=k3s&path=${name}`, 'its path is a workspace file']),
    ...['bin', 'go', 'node_modules', '~', '~x', '.ssh', '.github', 'x.code-workspace', ''].flatMap((name) => [name, `${name}.git`, `${name}.git/`].filter((repo) => repo !== '').map((repo) => [
      `playground=k3s&repo=https://github.com/a/${repo}`, `its repository would become the folder "${name}"`,
    ])),
  ])('is refused: %j', (query, words) => {
    expect(why(query)).toContain(`the link was refused: ${words}`);
  });

  it('asks to open, and nothing else', () => {
    for (const address of ['', '/', '/start', '/open/', '/open/x', '/Open']) expect(why('playground=k3s', address)).toContain('it is not a link that opens a playground');
  });
});

it('a text of someone else is one short visible line', () => {
  expect(printable('My\n\nlab\u202E\u2066 x\u200B y\u0007\u2028z')).toBe('My lab x y z');
  expect(printable('\u{1F600}'.repeat(100), 5)).toBe(`${'\u{1F600}'.repeat(4)}…`);
});

describe('the clone', () => {
  /** A home folder, and a git that notes how it was called and makes a clone. */
  const machine = (git = 'for last; do :; done; mkdir -p "$last/.git"') => {
    const home = folder();
    const bin = folder();
    writeFileSync(path.join(bin, 'git'), `#!/bin/sh\necho "$GIT_ALLOW_PROTOCOL $GIT_TERMINAL_PROMPT $*" >>"${bin}/calls"\n[ "$1" = -C ] && { echo "\${ORIGIN:-}"; exit; }\n${git}\n`, { mode: 0o755 });
    const run = (repo: string, shell = 'sh', env = {}) =>
      execFileSync(shell, ['-c', `exec sh -c '${cloneScript(repo)}'`], { env: { HOME: home, PATH: `${bin}:/usr/bin:/bin`, ...env }, encoding: 'utf8', stdio: 'pipe' });
    return { home, run, calls: () => readFileSync(path.join(bin, 'calls'), 'utf8') };
  };

  it('has no submodules, no questions and https only, and is seen when it is complete', () => {
    const { home, run, calls } = machine();
    run(REPO);
    expect(calls()).toMatch(/^https 0 clone --quiet --no-recurse-submodules -- https:\/\/github\.com\/ada\/notes\.git notes\.part-\d+\n$/);
    expect(readdirSync(home)).toEqual(['notes']);
    run(REPO, 'sh', { ORIGIN: REPO });
    expect(calls().match(/clone/g)).toHaveLength(1);
  });

  it('does not take another folder for it, and leaves nothing if it fails', () => {
    const other = machine();
    mkdirSync(path.join(other.home, 'notes'));
    expect(() => other.run(REPO)).toThrow(/notes exists there and is no clone of it/);
    const failing = machine('for last; do :; done; mkdir -p "$last"; exit 128');
    expect(() => failing.run(REPO)).toThrow();
    expect(readdirSync(failing.home)).toEqual([]);
  });

  it('works with the real git, which refuses what is not https', () => {
    const home = folder();
    const script = cloneScript(REPO).replace(`url="${REPO}"`, `url="file://${folder()}"`);
    expect(() => execFileSync('sh', ['-c', script], { env: { HOME: home, PATH: process.env['PATH'] }, stdio: 'pipe', encoding: 'utf8' })).toThrow(/transport 'file' not allowed/);
    expect([existsSync(path.join(home, 'notes')), folderOf(REPO)]).toEqual([false, 'notes']);
  });
});

describe('opening a link', () => {
  const catalog = [{ name: 'k3s', title: 'K3s', owner: '' }, { name: 'odd', title: 'O\u202Edd\nStart nothing', owner: 'mal\nlory' }];
  const open = (world: ReturnType<typeof acting>, query: string): Promise<void> => openLink(world.services, { path: '/open', query });
  const acts = (runs: string[]): string[] => runs.filter((run) => !/^(list|catalog)/.test(run));

  it('says what will happen and does nothing else without an answer', async () => {
    const world = acting([listed({ state: 'STOPPED', stoppedOnPurpose: true, title: 'My\u202E lab\nOpen it' })], { catalog });
    await open(world, `playground=${ID}&path=/srv&repo=${REPO}`);
    expect(user.details).toEqual([
      `Start your playground "My lab Open it" (docker), which you have stopped. That takes seconds to minutes.\n\nClone ${REPO} into the folder notes of the machine. The owner of that address decides what it contains.\n\nOpen the folder "/srv" in a new window.`,
    ]);
    await open(world, 'playground=odd');
    expect(user.details[1]).toBe(`Start a new playground "O dd Start nothing" (odd) by mal lory, not by the platform. That takes seconds to minutes, and it uses your account's playground time.\n\nOpen the home folder in a new window.`);
    expect([acts(world.runs()), commands.ran, user.offered]).toEqual([[], [], ['Open']]);
  });

  it('wakes, clones without an agent and opens a new window after a yes', async () => {
    const world = acting([listed()]);
    user.answers = ['Open'];
    await open(world, `playground=${ID}&repo=${REPO}`);
    const [entries, start, ...clone] = acts(world.runs());
    expect([entries, start]).toEqual(['config-ssh --yes --json', `start ${ID} --json`]);
    expect(clone.join('\n')).toBe(`ssh ${ID} -a -T -- exec sh -c '${cloneScript(REPO)}'`);
    expect(commands.ran).toEqual([['vscode.openFolder', `vscode-remote://ssh-remote+playground-${ID}/home/laborant/notes`, { forceNewWindow: true }]]);
  });

  it('opens no window if the clone fails', async () => {
    const world = acting([listed()], {}, '[ $1 = ssh ] && { echo "fatal: repository not found" >&2; exit 128; }');
    user.answers = ['Open'];
    await expect(open(world, `playground=${ID}&repo=${REPO}`)).rejects.toThrow(`cannot clone ${REPO}: fatal: repository not found`);
    expect(commands.ran).toEqual([]);
  });

  it('starts what the catalogue has, and asks again about an author', async () => {
    const world = acting([listed()], { catalog });
    user.answers = ['Open'];
    await open(world, 'playground=k3s&path=src');
    expect(acts(world.runs())[0]).toBe('start k3s --json');
    expect(commands.ran[0]?.[1]).toMatch(/\/home\/laborant\/src$/);
    user.answers = ['Open'];
    await open(world, 'playground=odd');
    expect([user.asked.at(-1), acts(world.runs()).some((run) => run.startsWith('start odd'))]).toEqual([expect.stringContaining('Do you trust the author'), false]);
  });

  it('takes the playground of a catalogue name that is there', async () => {
    const world = acting([listed()], { catalog });
    user.answers = ['Open'];
    await open(world, 'playground=docker');
    expect(user.details[0]).toContain('Enter your playground "Compose trial" (docker), which is running.');
    expect(acts(world.runs())).toContain(`start ${ID} --json`);
    const starting = acting([listed({ state: 'STARTING' })], { catalog });
    await open(starting, 'playground=docker&path=my notes');
    expect(user.details[1]).toBe(
      'Open your playground "Compose trial" (docker), which is starting, and start it if necessary. That takes seconds to minutes.\n\nOpen the folder "my notes" in a new window.',
    );
  });

  it('is refused for an id of someone else, and for a name that the catalogue lacks', async () => {
    const world = acting([listed()], { catalog });
    await expect(open(world, `playground=${'f'.repeat(24)}`)).rejects.toThrow('you have no playground with the id');
    await expect(open(world, 'playground=nothing')).rejects.toThrow('the catalogue has no playground nothing');
    expect([user.asked, acts(world.runs())]).toEqual([[], []]);
  });

  it('puts no question on top of another one', async () => {
    const world = acting([listed()], { catalog });
    const first = open(world, 'playground=k3s');
    await expect(open(world, 'playground=k3s')).rejects.toThrow('another link is waiting');
    await first;
    await open(world, 'playground=k3s');
    expect(user.asked).toHaveLength(2);
  });
});

describe('copying a link', () => {
  it('is for the user, or for others', async () => {
    const world = acting([listed()]);
    user.answers = ['To this playground', 'To a playground docker'];
    await world.does['playgrounds.copyLink'](ID);
    expect(user.clipboard).toBe(`vscode://ada.labctl-ssh-proxy/open?playground=${ID}`);
    await world.does['playgrounds.copyLink'](ID);
    expect(user.clipboard).toBe('vscode://ada.labctl-ssh-proxy/open?playground=docker');
  });

  it('has the folder of the window, if a link may name it', async () => {
    const world = acting([listed({ learning: { kind: 'challenge' } })]);
    for (const [at, link] of [['/srv/my app', `${ID}&path=/srv/my%20app`], ["/srv/it's", ID]] as const) {
      workspace.workspaceFolders = [{ uri: { scheme: 'vscode-remote', authority: `ssh-remote+playground-${ID}`, path: at } }];
      await world.does['playgrounds.copyLink'](ID);
      expect(user.clipboard).toBe(`vscode://ada.labctl-ssh-proxy/open?playground=${link}`);
    }
  });
});
