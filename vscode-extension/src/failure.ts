// Failures as the user sees them, and the reader that takes one from a process of the binary that has ended.

/** The name of the binary, which begins each of its own lines on standard error. */
export const NAME = 'labctl-ssh-proxy';

/** The kind of a failure, as far as the extension treats it specially. */
export type Kind = 'no-binary' | 'old-binary' | 'timeout' | 'bad-output' | 'cancelled' | 'not-logged-in' | 'not-found' | 'failed';

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

/**
 * Reads the failure from standard error. The last line of the program's own is the sentence, because those before it
 * reported the progress. A hint may follow it.
 */
export function readFailure(stderr: string, code: number | null): Failure {
  const lines = stderr.split(/\r?\n/);
  const at = lines.findLastIndex((line) => line.startsWith(`${NAME}: `));
  const hint = lines.slice(at + 1).find((line) => line.startsWith('hint: '));
  const message = at >= 0 ? lines[at]?.slice(NAME.length + 2) : lines.filter((line) => line.trim() !== '').at(-1);
  const kinds: Partial<Record<number, Kind>> = { 3: 'not-logged-in', 4: 'not-found', 130: 'cancelled' };
  const status = code === null ? 'was killed' : `ended with exit status ${code}`;
  return new Failure(kinds[code ?? -1] ?? 'failed', message ?? `${NAME} ${status}`, hint?.slice('hint: '.length));
}
