# powershell completion for etcdctl                        -*- shell-script -*-

Register-ArgumentCompleter -Native -CommandName 'etcdctl' -ScriptBlock {
    param($WordToComplete, $CommandAst, $CursorPosition)
    $words = @($CommandAst.CommandElements | ForEach-Object { "$_" })
    $before = @($words | Select-Object -Skip 1)
    if ($WordToComplete -and $before.Count -gt 0) {
        $before = @($before | Select-Object -SkipLast 1)
    }
    & $words[0] __complete @before "$WordToComplete" 2>$null |
        Where-Object { $_ -notmatch '^:[0-9]+$' } |
        ForEach-Object {
            $name, $about = $_ -split "`t", 2
            if (-not $about) { $about = $name }
            [System.Management.Automation.CompletionResult]::new($name, $name, 'ParameterValue', $about)
        }
}
