// The download of the program, from a local server with a certificate of its own. The archives are made by the same programs
// and options as those of scripts/package: tar, gzip, zip, sha256sum.

import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Server, createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import * as path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import manifest from '../../package.json';
import { ACTIONS } from '../../src/actions';
import { unpack } from '../../src/binary/archive';
import { TARGETS, download, findDownload } from '../../src/binary/download';
import { readVersion } from '../../src/binary/version';
import { STEPS } from '../../src/commands';
import { Failure } from '../../src/failure';
import { showFailure } from '../../src/messages';
import { commands, user } from './vscode';
import { acting, binary, folder, listed, program } from './world';

const VERSION = '1.2.3';
const ARCHIVE = 'labctl-ssh-proxy-x86_64-unknown-linux-musl.tar.gz';
let at: string;
let key: Buffer;
let ca: Buffer;
let server: Server;
let base: string;
/** Answers that stand in for the files of the release. */
let instead: Record<string, (answer: ServerResponse) => void>;
let asked: string[];

/** A folder with what an archive holds: the program of a version, its helper and other files. */
function content(version = VERSION): string {
  const made = folder();
  mkdirSync(path.join(made, 'man/man1'), { recursive: true });
  program('', version, made);
  writeFileSync(path.join(made, 'labctl-ssh-proxy-helper-aarch64.gz'), `helper ${version}`);
  writeFileSync(path.join(made, 'man/man1/labctl-ssh-proxy.1'), '.TH');
  writeFileSync(path.join(made, 'LICENSE'), 'x'.repeat(3000));
  return made;
}

/** Packs a folder as scripts/package does. */
function pack(made: string, into: string): void {
  const script = `cd "${made}" && find . -type f | sed 's|^\\./||' | sort >"${into}/list"
    tar -C "${made}" --format=ustar --owner=0 --group=0 --numeric-owner -cf - -T "${into}/list" | gzip -n >"${into}/${ARCHIVE}"
    rm "${into}/list"; cd "${into}" && sha256sum ${ARCHIVE} >${ARCHIVE}.sha256`;
  execFileSync('sh', ['-ec', script]);
}

beforeAll(async () => {
  const keys = folder();
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
    '-addext', 'subjectAltName=DNS:localhost', '-keyout', `${keys}/key`, '-out', `${keys}/cert`], { stdio: 'ignore' });
  [key, ca] = [readFileSync(`${keys}/key`), readFileSync(`${keys}/cert`)];
  at = folder();
  pack(content(), at);
  server = createServer({ key, cert: ca }, (request: IncomingMessage, answer: ServerResponse) => {
    const name = path.basename(request.url ?? '');
    asked.push(request.url ?? '');
    const other = instead[name];
    if (other) other(answer);
    else if (existsSync(path.join(at, name))) answer.end(readFileSync(path.join(at, name)));
    else answer.writeHead(404).end('not found');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `https://localhost:${(server.address() as AddressInfo).port}`;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

beforeEach(() => {
  [instead, asked] = [{}, []];
  Object.assign(user, { answer: undefined, answers: [], asked: [], offered: [], cancels: false });
});

/** A computer without the program. */
function computer() {
  const home = folder();
  const system = { env: {}, platform: 'linux' as const, home };
  const bin = path.join(home, '.iximiuz/labctl-ssh-proxy/bin');
  const files = (): string[] => (existsSync(bin) ? readdirSync(bin).sort() : []);
  const tried: string[] = [];
  const versionOf = (file: string) => {
    tried.push(file);
    return Promise.resolve(readVersion(execFileSync(file, ['--version'], { encoding: 'utf8' })));
  };
  const abort = new AbortController();
  const reports: string[] = [];
  const run = (options: object = { ca }, from = findDownload({ version: VERSION, repository: { url: `${base}/ada/x.git` } }, 'linux', 'x64')) =>
    download(from, system, versionOf, { signal: abort.signal, report: (line) => { reports.push(line); } }, options);
  return { system, bin, files, tried, abort, reports, run };
}

const failure = (work: Promise<unknown>): Promise<Failure> => work.then(() => { throw new Error('it did not fail'); }, (error: unknown) => error as Failure);

describe('a download', () => {
  it('installs the program and its helper, which only the user can read', async () => {
    const { system, bin, files, reports, run } = computer();
    const copy = path.join(bin, 'labctl-ssh-proxy');
    expect(await run()).toBe(copy);
    expect(files()).toEqual(['labctl-ssh-proxy', 'labctl-ssh-proxy-helper-aarch64.gz']);
    expect([statSync(copy).mode & 0o777, statSync(bin).mode & 0o777]).toEqual([0o700, 0o700]);
    expect(asked[1]).toBe(`/ada/x/releases/download/v${VERSION}/${ARCHIVE}`);
    expect(reports.at(-2)).toMatch(/^\d.* of \d/);
    // The package for all platforms uses it from now on.
    expect(await binary('', { ...system, env: { PATH: '' }, extension: { folder: folder(), version: VERSION } }).usable()).toBe(copy);
  });

  it('follows redirects, but not to http', async () => {
    const { files, run } = computer();
    let target = `${base}/elsewhere/file`;
    instead = { [ARCHIVE]: (answer) => answer.writeHead(302, { location: target }).end(), file: (answer) => answer.end(readFileSync(path.join(at, ARCHIVE))) };
    await run();
    expect(asked.at(-1)).toBe('/elsewhere/file');
    target = 'http://localhost:1/file';
    expect((await failure(run())).message).toContain('is redirected to http://localhost:1, which is not encrypted');
    target = `${base}/x/${ARCHIVE}`;
    expect((await failure(run())).message).toContain('is redirected more than 5 times');
    expect(files()).toHaveLength(2);
  });

  it('changes nothing if something is wrong', async () => {
    const bytes = readFileSync(path.join(at, ARCHIVE));
    const sum = readFileSync(path.join(at, `${ARCHIVE}.sha256`), 'utf8');
    const cases: [RegExp, typeof instead][] = [
      [/the checksum of .* is wrong: expected/, { [ARCHIVE]: (answer) => answer.end('other') }],
      [/cannot download .*: (aborted|it ended before)/, { [ARCHIVE]: (answer) => { answer.writeHead(200, { 'content-length': bytes.length }); answer.write(bytes.subarray(0, 100), () => answer.destroy()); } }],
      [/localhost:\d+ answered 404/, { [ARCHIVE]: (answer) => answer.writeHead(404).end() }],
      [/has no checksum for/, { [`${ARCHIVE}.sha256`]: (answer) => answer.end(sum.replace('x86_64', 'aarch64')) }],
      [/has no checksum for/, { [`${ARCHIVE}.sha256`]: (answer) => answer.end('<html>') }],
      [/it has more than 100 MB/, { [ARCHIVE]: (answer) => answer.writeHead(200, { 'content-length': 1e9 }).end() }],
      [/it has more than 4.0 KB/, { [`${ARCHIVE}.sha256`]: (answer) => answer.end('0'.repeat(100_000)) }],
    ];
    for (const [words, answers] of cases) {
      const { files, run } = computer();
      instead = answers;
      const failed = await failure(run());
      expect([failed.kind, failed.message]).toEqual(['failed', expect.stringMatching(words)]);
      expect(failed.message).toContain('nothing was installed');
      expect(files()).toEqual([]);
    }
  });

  it('needs a certificate that is trusted', async () => {
    const { files, run } = computer();
    expect((await failure(run({}))).message).toMatch(/self-signed certificate/);
    expect(files()).toEqual([]);
  });

  it('refuses a program of another version, and keeps the one that is there', async () => {
    const { files, bin, run } = computer();
    await run();
    const contents = () => files().map((name) => readFileSync(path.join(bin, name), 'utf8'));
    const before = contents();
    const other = folder();
    pack(content('1.0.0'), other);
    instead = Object.fromEntries([ARCHIVE, `${ARCHIVE}.sha256`].map((name) => [name, (answer: ServerResponse) => answer.end(readFileSync(path.join(other, name)))]));
    expect((await failure(run())).message).toContain('is version 1.0.0, not 1.2.3');
    expect(contents()).toEqual(before);
    expect(before[1]).toBe('helper 1.2.3');
  });

  it('does not share a file with another one at the same time', async () => {
    const { files, tried, run } = computer();
    await Promise.all([run(), run()]);
    expect([new Set(tried).size, files()]).toEqual([2, ['labctl-ssh-proxy', 'labctl-ssh-proxy-helper-aarch64.gz']]);
  });

  it('can be cancelled', async () => {
    const { abort, files, run } = computer();
    instead = { [ARCHIVE]: () => { abort.abort(); } };
    expect((await failure(run())).kind).toBe('cancelled');
    expect((await failure(run())).kind).toBe('cancelled');
    expect(files()).toEqual([]);
  });
});

describe('archives', () => {
  it('are those that scripts/package-extension takes the programs from', () => {
    const script = readFileSync(path.join(import.meta.dirname, '../../../scripts/package-extension'), 'utf8');
    const table = [...script.matchAll(/^ {4}([a-z0-9-]+)(?: \| [a-z0-9-]+)?\) echo (\S+) ;;$/gm)].map(([, platform, target]) => [platform, target]);
    expect(Object.entries(TARGETS)).toEqual(table);
  });

  it('for Windows are zips, packed by zip or by another program', async () => {
    const made = content();
    writeFileSync(path.join(made, 'labctl-ssh-proxy.exe'), 'exe '.repeat(1000));
    const python = `import os,sys,zipfile
z=zipfile.ZipFile(sys.argv[1],'w')
for d,_,fs in os.walk('.'):
  for f in fs: z.write(os.path.join(d,f), compress_type=zipfile.ZIP_DEFLATED if f.endswith('exe') else zipfile.ZIP_STORED)`;
    const zip = path.join(folder(), 'x.zip');
    execFileSync('python3', ['-c', python, zip], { cwd: made });
    const files = await unpack(readFileSync(zip), (name) => !name.includes('/'));
    expect([...files.keys()].sort()).toEqual(['LICENSE', 'labctl-ssh-proxy', 'labctl-ssh-proxy-helper-aarch64.gz', 'labctl-ssh-proxy.exe']);
    for (const [name, bytes] of files) expect(bytes.equals(readFileSync(path.join(made, name))), name).toBe(true);
    for (const broken of [readFileSync(zip).subarray(0, 300), readFileSync(path.join(at, ARCHIVE)).subarray(0, 100), Buffer.from('text')]) {
      await expect(unpack(broken, () => true)).rejects.toThrow();
    }
  });
});

describe('the button', () => {
  it('is refused in words as long as there is no release', () => {
    const why = (manifest: object, platform: NodeJS.Platform = 'linux', arch = 'x64'): string => {
      try {
        return findDownload({ version: VERSION, ...manifest }, platform, arch).folder;
      } catch (error) {
        return (error as Failure).text;
      }
    };
    expect(why({})).toBe(
      'This package of the extension names no release to download from. Install the package of this extension for your platform, which brings the program along, or install labctl-ssh-proxy yourself.',
    );
    const repository = { url: 'https://example.org/ada/x.git' };
    expect(why({ repository })).toBe('https://example.org/ada/x/releases/download/v1.2.3');
    expect(why({ repository }, 'freebsd', 'x64')).toBe('A release has no program for freebsd on x64. Build labctl-ssh-proxy with cargo.');
    expect(why({ repository: { url: 'http://example.org/ada/x' } })).toMatch(/is not an https address/);
  });

  it('downloads nothing if a program is installed', async () => {
    const { does } = acting([listed()]);
    await does['playgrounds.download']();
    expect(user.asked).toEqual([expect.stringMatching(/^The program is installed already: \//)]);
    // The step of the walkthrough.
    expect(commands.contexts[STEPS.hasProgram]).toBe(true);
  });

  /** Presses the button with another program, or none, on a computer without one. */
  const press = (configured: string, world: object): Promise<void> => {
    const { services } = acting([listed()]);
    return ACTIONS['playgrounds.download']({ ...services, binary: binary(configured, { env: { PATH: '' }, home: folder(), platform: 'linux', ...world }) }, undefined);
  };

  it('downloads nothing if the package brings the program along', async () => {
    const [home, extension] = [folder(), { folder: folder(), version: VERSION }];
    mkdirSync(path.join(extension.folder, 'bin'));
    chmodSync(program('', VERSION, path.join(extension.folder, 'bin')), 0o644);
    await press('', { home, extension });
    expect(user.asked).toEqual([`The program is installed already: ${home}/.iximiuz/labctl-ssh-proxy/bin/labctl-ssh-proxy`]);
  });

  it('says why a download would not be used, and offers it only where it helps', async () => {
    expect((await failure(press('/nowhere/x', {}))).text).toBe('The setting playgrounds.binary names no program, and a downloaded one would not be used. Correct or clear it.');
    const installed = await failure(press(program('', '0.0.9'), {}));
    expect([installed.kind, installed.text]).toEqual(['no-release', expect.stringMatching(/is version 0\.0\.9, but .* Update it, or remove it and download again/)]);
    // An old copy is replaced, so that this goes on to look for the release.
    const home = folder();
    const bin = path.join(home, '.iximiuz/labctl-ssh-proxy/bin');
    mkdirSync(bin, { recursive: true });
    program('', '0.0.9', bin);
    expect((await failure(press('', { home, extension: { folder: folder(), version: VERSION } }))).message).toContain('names no release');
    showFailure(new Failure('old-binary', 'x'));
    expect(user.offered).toEqual(['Download', 'Show Installation Steps']);
    const welcome = manifest.contributes.viewsWelcome.find((one) => one.when.endsWith('== old-binary'));
    expect(welcome?.contents).toContain('[Download](command:playgrounds.download)');
  });
});
