// Downloads the program from the release of this extension's version, for packages that do not bring it along. It trusts what
// the installer of a release trusts: the server's certificate, and the checksum that lies beside the archive.

import { createHash } from 'node:crypto';
// Without `node:`, because VS Code knows its proxy settings and certificates for the modules of these names only.
import * as https from 'https';
import * as path from 'node:path';
import { Failure, NAME, cancelled } from '../failure';
import { size } from '../format';
import { unpack } from './archive';
import { copyPath, replace } from './bundled';
import { type System, programName } from './locate';

/** The largest archive in bytes. One of a release has less than 10 MB. */
const MAX_ARCHIVE = 100_000_000;
/** The largest file with a checksum: one line. */
const MAX_CHECKSUM = 4000;
/** The number of redirects that are followed. GitHub's downloads have one. */
const MAX_REDIRECTS = 5;
/** The time without a byte after which a download is given up. */
const SILENCE_MS = 30_000;

/** The archives by the platforms of VS Code. A test compares them with scripts/package-extension. */
export const TARGETS: Readonly<Record<string, string>> = {
  'linux-x64': 'x86_64-unknown-linux-musl',
  'linux-arm64': 'aarch64-unknown-linux-musl',
  'darwin-x64': 'x86_64-apple-darwin',
  'darwin-arm64': 'aarch64-apple-darwin',
  'win32-x64': 'x86_64-pc-windows-gnu',
  'win32-arm64': 'aarch64-pc-windows-msvc',
};

/** A download that can be made. */
export interface Download {
  /** The address of the folder of the release. */
  folder: string;
  archive: string;
  version: string;
}

/** The controls of a download. */
export interface Work {
  signal: AbortSignal;
  report: (line: string) => void;
}

/** The part of package.json that names the release. `scripts/publisher` writes the repository. */
export interface Manifest {
  version: string;
  repository?: { url?: string };
}

/** Finds the download for a computer. Throws if there is no release, or none for such a computer. */
export function findDownload(manifest: Manifest, platform: NodeJS.Platform, arch: string): Download {
  const instead = `install the package of this extension for your platform, which brings the program along, or install ${NAME} yourself`;
  const repository = (manifest.repository?.url ?? '').replace(/\.git$/, '');
  if (repository === '') {
    throw new Failure('no-release', 'this package of the extension names no release to download from', instead);
  }
  if (!repository.startsWith('https://')) throw new Failure('no-release', `${repository} is not an https address`, instead);
  const target = TARGETS[`${platform}-${arch}`];
  if (target === undefined) throw new Failure('no-release', `a release has no program for ${platform} on ${arch}`, `build ${NAME} with cargo`);
  const { version } = manifest;
  const archive = `${NAME}-${target}.${platform === 'win32' ? 'zip' : 'tar.gz'}`;
  return { folder: `${repository}/releases/download/v${version}`, archive, version };
}

/**
 * Downloads the program and installs it at the place of the extension's copy. Nothing is replaced before the checksum was
 * compared and the new program has said its version. Its helpers come before it, so that it never runs without them. `versionOf`
 * runs a program; `options` are those of each request.
 */
export async function download(
  { folder, archive, version }: Download,
  system: System,
  versionOf: (file: string) => Promise<string | undefined>,
  work: Work,
  options: https.RequestOptions = {},
): Promise<string> {
  const address = new URL(`${folder}/${archive}`);
  const sum = checksum((await fetchBytes(new URL(`${address.href}.sha256`), MAX_CHECKSUM, { ...work, report: () => undefined }, options)).toString(), archive);
  const packed = await fetchBytes(address, MAX_ARCHIVE, work, options);
  const found = createHash('sha256').update(packed).digest('hex');
  if (found !== sum) throw refused(`the checksum of ${address.href} is wrong: expected ${sum}, found ${found}`);
  work.report('unpacking');
  const name = programName(system.platform);
  const isHelper = (file: string): boolean => file.startsWith(`${NAME}-helper-`) && file.endsWith('.gz') && !file.includes('/');
  const files = await unpack(packed, (file) => file === name || isHelper(file)).catch((error: unknown) => {
    throw refused(`${archive} cannot be unpacked: ${reasonOf(error)}`);
  });
  const program = files.get(name);
  if (program === undefined) throw refused(`${archive} does not contain the program`);
  const copy = copyPath(system);
  const check = async (beside: string): Promise<void> => {
    const said = await versionOf(beside);
    if (said === undefined) throw refused('the downloaded program does not run on this computer');
    if (said !== version) throw refused(`the downloaded program is version ${said}, not ${version}`);
    if (work.signal.aborted) throw cancelled();
    // It finds its helpers beside itself.
    for (const [file, bytes] of files) {
      if (file !== name) await replace(path.join(path.dirname(copy), file), { bytes, mode: 0o600 }, system.platform);
    }
  };
  try {
    await replace(copy, { bytes: program, mode: 0o700, check }, system.platform);
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('failed', `the program cannot be written to ${copy}: ${reasonOf(error)}`, `make room there, or install ${NAME} yourself`);
  }
  return copy;
}

/** Reads the file of a checksum, one line of sha256sum. */
function checksum(text: string, archive: string): string {
  const [, sum, name] = /^([0-9a-f]{64}) [ *](\S+)\r?\n?$/.exec(text) ?? [];
  if (sum === undefined || name !== archive) throw refused(`${archive}.sha256 has no checksum for ${archive}`);
  return sum;
}

/** Fetches a file of at most `limit` bytes over https, whatever it is redirected to. */
async function fetchBytes(address: URL, limit: number, work: Work, options: https.RequestOptions): Promise<Buffer> {
  let url = address;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    if (url.protocol !== 'https:') throw refused(`${address.href} is redirected to ${url.protocol}//${url.host}, which is not encrypted`);
    const answer = await fetchOnce(url, limit, work, options).catch((error: unknown) => {
      if (error instanceof Failure) throw error;
      throw refused(`cannot download ${address.href}: ${reasonOf(error)}`);
    });
    if (Buffer.isBuffer(answer)) return answer;
    url = answer;
  }
  throw refused(`${address.href} is redirected more than ${MAX_REDIRECTS} times`);
}

/** Resolves to the content, or to the address of a redirect. */
function fetchOnce(url: URL, limit: number, { signal, report }: Work, options: https.RequestOptions): Promise<Buffer | URL> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) throw cancelled();
    const request = https.get(url, { ...options, headers: { 'user-agent': NAME, accept: '*/*' } }, (answer) => {
      const { statusCode = 0, headers } = answer;
      if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
        answer.resume();
        try {
          resolve(new URL(headers.location, url));
        } catch {
          fail(new Error(`it is redirected to ${headers.location}`));
        }
        return;
      }
      const total = Number(headers['content-length'] ?? NaN);
      const tooLarge = new Error(`it has more than ${size(limit)}`);
      if (statusCode !== 200) fail(new Error(`${url.host} answered ${statusCode}`));
      else if (total > limit) fail(tooLarge);
      const chunks: Buffer[] = [];
      let received = 0;
      answer.on('data', (chunk: Buffer) => {
        received += chunk.length;
        if (received > limit) fail(tooLarge);
        chunks.push(chunk);
        report(total > 0 ? `${size(received)} of ${size(total)}` : size(received));
      });
      answer.on('error', fail);
      answer.on('end', () => {
        if (answer.complete) resolve(Buffer.concat(chunks));
        else fail(new Error('it ended before it was complete'));
      });
    });
    const fail = (error: Error): void => {
      reject(error);
      request.destroy();
    };
    request.on('error', fail);
    request.setTimeout(SILENCE_MS, () => {
      fail(new Error(`${url.host} was silent for ${SILENCE_MS / 1000} s`));
    });
    const cancel = (): void => {
      fail(cancelled());
    };
    signal.addEventListener('abort', cancel);
    request.on('close', () => {
      signal.removeEventListener('abort', cancel);
    });
  });
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The failure of a download after which everything is as it was before. */
const refused = (message: string): Failure => new Failure('failed', `${message}; nothing was installed`, `try again, or install ${NAME} yourself`);
