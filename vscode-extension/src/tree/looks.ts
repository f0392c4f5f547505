// The parts of all tree items.

import * as vscode from 'vscode';

export const icon = (id: string, color: string): vscode.ThemeIcon => new vscode.ThemeIcon(id, new vscode.ThemeColor(color));
export const joined = (parts: (string | false | 0 | undefined)[], separator: string): string => parts.filter(Boolean).join(separator);
