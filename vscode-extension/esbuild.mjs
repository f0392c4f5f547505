// Bundles the extension, its script for the end and its tests in a real VS Code, one file each. `--production` leaves the
// tests out, and minifies.
import { build } from 'esbuild';

const production = process.argv.includes('--production');
const options = {
  bundle: true,
  external: ['vscode'],
  format: 'cjs',
  platform: 'node',
  target: 'node18',
  minify: production,
  sourcemap: production ? false : 'linked',
};
await build({ ...options, entryPoints: ['src/extension.ts', 'src/uninstall.ts'], outdir: 'dist' });
if (!production) await build({ ...options, entryPoints: ['test/vscode/extension-host.ts'], outfile: 'dist/test/extension-host.js' });
