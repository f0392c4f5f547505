# Installs a released program on Windows for the user who runs it, and removes it again.
# An older one is replaced in one step; if anything fails before that, it stays. The checksum comes from the same place
# as the archive, so it detects a broken download but not a compromised server. Everything stands in a function that the
# last line calls, so that a script which arrives only in part does nothing.
#
#   install.ps1 [-From FOLDER|ADDRESS] [-To FOLDER] [-Version V] [-Uninstall]
param(
    [string]$From = '',
    [string]$To = (Join-Path $env:LOCALAPPDATA 'Programs\labctl-ssh-proxy'),
    [string]$Version = '',
    [switch]$Uninstall
)

$address = '' # the project's repository; scripts/publisher writes it from packaging/publisher.toml

function Install-LabctlSshProxy {
    $ErrorActionPreference = 'Stop'
    $ProgressPreference = 'SilentlyContinue'
    $program = Join-Path $To 'labctl-ssh-proxy.exe'
    $files = @('LICENSE', 'README.md', 'CHANGELOG.md', 'THIRD-PARTY-LICENSES.txt', '_labctl-ssh-proxy.ps1',
        'labctl-ssh-proxy-helper-aarch64.gz')

    if ($Uninstall) {
        if (-not (Test-Path $program)) { throw "There is no program in $To. Name the folder with -To." }
        # Windows deletes no program that runs.
        Remove-Item -Force $program
        foreach ($file in $files + 'labctl-ssh-proxy.old.exe') {
            Remove-Item -Force -ErrorAction SilentlyContinue (Join-Path $To $file)
        }
        if (-not (Get-ChildItem -Force $To)) { Remove-Item $To }
        $path = [Environment]::GetEnvironmentVariable('Path', 'User')
        $kept = ($path -split ';' | Where-Object { $_ -and $_ -ne $To }) -join ';'
        [Environment]::SetEnvironmentVariable('Path', $kept, 'User')
        Write-Output "labctl-ssh-proxy was removed from $To."
        return
    }

    $target = 'x86_64-pc-windows-gnu'
    if ($env:PROCESSOR_ARCHITECTURE -eq 'ARM64') { $target = 'aarch64-pc-windows-msvc' }
    $name = "labctl-ssh-proxy-$target.zip"
    if (-not $From) {
        if (-not $address) { throw 'This copy has no release page yet. Name the folder with the released files: -From FOLDER' }
        $From = "$address/releases/latest/download"
        if ($Version) { $From = "$address/releases/download/v$($Version.TrimStart('v'))" }
    }
    if ($From -match '://' -and $From -notmatch '^https://') { throw 'From must be a folder or an https:// address.' }

    $work = Join-Path ([IO.Path]::GetTempPath()) ([Guid]::NewGuid())
    New-Item -ItemType Directory $work | Out-Null
    try {
        foreach ($file in $name, "$name.sha256") {
            if ($From -match '^https://') {
                Invoke-WebRequest -UseBasicParsing "$From/$file" -OutFile (Join-Path $work $file)
            } else {
                Copy-Item (Join-Path $From $file) $work
            }
        }
        $wanted = (((Get-Content (Join-Path $work "$name.sha256")) -split ' ')[0]).ToLower()
        $found = (Get-FileHash -Algorithm SHA256 (Join-Path $work $name)).Hash.ToLower()
        if ($wanted -ne $found) { throw "The checksum is wrong: expected $wanted, found $found. Nothing was installed." }
        Expand-Archive (Join-Path $work $name) (Join-Path $work 'new')
        $new = Join-Path $work 'new\labctl-ssh-proxy.exe'
        $said = & $new --version
        if ($LASTEXITCODE -ne 0) { throw 'The program does not run on this computer. Nothing was installed.' }
        $offered = ($said -split ' ')[-1]
        if ($Version -and $Version.TrimStart('v') -ne $offered) { throw "$From has version $offered, not $Version. Nothing was installed." }
        if ((Test-Path $program) -and -not $Version) {
            $there = ((& $program --version) -split ' ')[-1]
            if ([Version]($there -split '[-+]')[0] -gt [Version]($offered -split '[-+]')[0]) {
                throw "$there is installed, which is newer than $offered. Add -Version $offered to replace it all the same."
            }
        }
        New-Item -ItemType Directory -Force $To | Out-Null
        foreach ($file in $files) {
            $source = Join-Path $work "new\$file"
            if (-not (Test-Path $source)) { $source = Join-Path $work "new\completions\$file" }
            if (Test-Path $source) { Copy-Item -Force $source $To }
        }
        Copy-Item $new (Join-Path $To 'labctl-ssh-proxy.new.exe')
        # A program that runs can be renamed, though it can be neither overwritten nor deleted.
        $old = Join-Path $To 'labctl-ssh-proxy.old.exe'
        Remove-Item -Force -ErrorAction SilentlyContinue $old
        if (Test-Path $program) { Move-Item -Force $program $old }
        Move-Item (Join-Path $To 'labctl-ssh-proxy.new.exe') $program
        Remove-Item -Force -ErrorAction SilentlyContinue $old
    } finally {
        Remove-Item -Recurse -Force $work
    }

    Write-Output "${program}: version $offered"
    $path = [Environment]::GetEnvironmentVariable('Path', 'User')
    if (($path -split ';') -notcontains $To) {
        [Environment]::SetEnvironmentVariable('Path', (@($path -split ';' | Where-Object { $_ }) + $To) -join ';', 'User')
        Write-Output 'Your PATH has its folder now; a new terminal finds it by its name.'
    }
    Write-Output "For its completions, add to the file in `$PROFILE: . '$(Join-Path $To '_labctl-ssh-proxy.ps1')'"
}

Install-LabctlSshProxy
