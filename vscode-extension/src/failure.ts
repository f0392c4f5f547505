// Failures as the user sees them, and the reader that takes one from a process of the binary that has ended.

/** The name of the binary, which begins each of its own lines on standard error. */
export const NAME = 'labctl-ssh-proxy';

/** The kind of a failure, as far as the extension treats it specially. */
export type Kind = 'no-binary' | 'old-binary' | 'timeout' | 'bad-output' | 'cancelled' | 'not-logged-in' | 'failed';

/** The kinds of the binary that are treated specially, by their names in its JSON. All others are plain failures. */
export const BINARY_KINDS: ReadonlyMap<string, Kind> = new Map([
  ['not-logged-in', 'not-logged-in'],
  ['interrupted', 'cancelled'],
]);

/** A failure as the user sees it: a sentence, and what to do about it. */
export class Failure extends Error {
  constructor(
    readonly kind: Kind,
    message: string,
    readonly hint = '',
  ) {
    super(message);
  }

  static from(error: unknown): Failure {
    if (error instanceof Failure) return error;
    return new Failure('failed', error instanceof Error ? error.message : String(error));
  }
}

export const cancelled = (): Failure => new Failure('cancelled', 'cancelled');

/** The failure that the binary describes in its JSON. */
export function describedFailure(kind: string, message: string, hint: string): Failure {
  return new Failure(BINARY_KINDS.get(kind) ?? 'failed', message, hint);
}

/** The end of a process, and the last that it printed. */
export interface Exit {
  /** The last line of standard output. */
  lastLine: string;
  stderr: string;
  code: number | null;
  signal: NodeJS.Signals | null;
}

/**
 * Reads the failure of a process of the binary. With `--json` the binary describes it in the last line of its output:
 * `{"error":{"kind":"not-logged-in","message":"...","hint":"..."}}`. One that crashed or is older does not. Then its text
 * is shown, and its kind is not known: an exit status is not enough, because other programs end with the same ones.
 */
export function readFailure(exit: Exit): Failure {
  const { lastLine, stderr, code, signal } = exit;
  return fromJson(lastLine) ?? fromSignal(signal) ?? fromText(stderr) ?? fromStatus(code);
}

function fromJson(line: string): Failure | undefined {
  let value: { error?: { kind?: unknown; message?: unknown; hint?: unknown } | null } | null;
  try {
    value = JSON.parse(line) as typeof value;
  } catch {
    return undefined;
  }
  const { kind, message, hint } = value?.error ?? {};
  if (typeof message !== 'string' || message === '') return undefined;
  return describedFailure(typeof kind === 'string' ? kind : '', message, typeof hint === 'string' ? hint : '');
}

/** The failure of a process that was killed. Its standard error ends in the middle of its work and is of no use. */
function fromSignal(signal: NodeJS.Signals | null): Failure | undefined {
  return signal === null ? undefined : new Failure('failed', `${NAME} was killed by ${signal}`);
}

/**
 * The failure in the text of standard error. The last line of the binary's own is the sentence, because those before it
 * reported the progress; a hint may follow it. Of the text of a crash or of a command line that is not understood, the
 * first line is the sentence.
 */
function fromText(stderr: string): Failure | undefined {
  const lines = stderr.split(/\r?\n/).filter((line) => line.trim() !== '');
  const at = lines.findLastIndex((line) => line.startsWith(`${NAME}: `));
  const sentence = at < 0 ? lines[0] : lines[at]?.slice(`${NAME}: `.length);
  if (sentence === undefined) return undefined;
  const hint = lines.slice(at + 1).find((line) => line.startsWith('hint: '));
  return new Failure('failed', sentence, hint?.slice('hint: '.length));
}

const fromStatus = (code: number | null): Failure => new Failure('failed', `${NAME} ended with exit status ${code ?? 'unknown'}`);
