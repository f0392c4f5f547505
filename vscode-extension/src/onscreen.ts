// A line that the user opens in the tree. It asks for its news only while it is on the screen.

import type { Disposable, Watch } from './watch';

/** Something that the user has opened. */
export interface Opened {
  /** The id of its playground. */
  playground: string;
  /** False from the moment at which its playground is collapsed until it is on the screen again. */
  shown: boolean;
}

/** `News` says what has changed. */
export abstract class OnScreen<Entry extends Opened, News = undefined> implements Disposable {
  protected readonly entries = new Map<string, Entry>();
  private readonly listeners = new Set<(news: News) => void>();
  private readonly subscription: Disposable;
  private visible = false;

  constructor(protected readonly watch: Watch) {
    this.subscription = watch.onDidChange(() => {
      this.follow();
    });
  }

  onDidChange(listener: (news: News) => void): Disposable {
    this.listeners.add(listener);
    return { dispose: () => this.listeners.delete(listener) };
  }

  /** Notes that a playground itself was collapsed or expanded. */
  setFolded(id: string, folded: boolean): void {
    for (const entry of this.entries.values()) if (entry.playground === id) entry.shown = !folded;
    this.adjustAll();
  }

  /**
   * True if something of a playground was open when it was collapsed. VS Code does not report whether "Collapse All" has closed
   * that as well, but asks only for the children of those that it shows.
   */
  isFolded(id: string): boolean {
    return [...this.entries.values()].some((entry) => entry.playground === id && !entry.shown);
  }

  setVisible(visible: boolean): void {
    this.visible = visible;
    this.adjustAll();
  }

  dispose(): void {
    this.subscription.dispose();
    for (const key of this.entries.keys()) this.forget(key);
    this.listeners.clear();
  }

  protected isOnScreen(entry: Entry): boolean {
    return this.visible && entry.shown;
  }

  /** Notes that VS Code shows what is below an entry. */
  protected unfold(key: string): void {
    const entry = this.entries.get(key);
    if (!entry) return;
    entry.shown = true;
    this.adjust(key, entry);
  }

  protected forget(key: string): void {
    const entry = this.entries.get(key);
    if (entry) this.halt(entry);
    this.entries.delete(key);
  }

  protected tell(news: News): void {
    for (const listener of this.listeners) listener(news);
  }

  /** Follows the list of playgrounds. */
  protected abstract follow(): void;

  /** Starts or stops the questions, as what is on the screen requires. */
  protected abstract adjust(key: string, entry: Entry): void;

  /** Ends the questions. */
  protected abstract halt(entry: Entry): void;

  private adjustAll(): void {
    for (const [key, entry] of this.entries) this.adjust(key, entry);
  }
}
