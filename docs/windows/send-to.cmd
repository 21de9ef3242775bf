@echo off
rem Adds oomscope to the "Send to" menu of this user, or takes it away: send-to.cmd [remove]
setlocal
set "LINK=%APPDATA%\Microsoft\Windows\SendTo\oomscope.lnk"
if /i "%~1"=="remove" (
  del "%LINK%" 2>nul
  echo oomscope is no longer under "Send to".
  exit /b 0
)
set "PROGRAM=%~dp0oomscope.exe"
if not exist "%PROGRAM%" (
  echo oomscope.exe is not beside this script.
  exit /b 1
)
powershell -NoProfile -Command "$s = (New-Object -ComObject WScript.Shell).CreateShortcut($env:LINK); $s.TargetPath = $env:PROGRAM; $s.Description = 'What a dump ran out of, and who holds the memory'; $s.Save()"
if errorlevel 1 exit /b 1
echo oomscope is under "Send to" now.
