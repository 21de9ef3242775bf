@echo off
rem Offers oomscope under "Open with" for .dmp files of this user, or takes it away:
rem associate.cmd [remove]
setlocal
set "CLASS=HKCU\Software\Classes\oomscope.dump"
set "WITH=HKCU\Software\Classes\.dmp\OpenWithProgids"
if /i "%~1"=="remove" (
  reg delete "%CLASS%" /f >nul 2>&1
  reg delete "%WITH%" /v oomscope.dump /f >nul 2>&1
  echo oomscope is no longer offered for .dmp files.
  exit /b 0
)
set "PROGRAM=%~dp0oomscope.exe"
if not exist "%PROGRAM%" (
  echo oomscope.exe is not beside this script.
  exit /b 1
)
reg add "%CLASS%" /ve /d "Process dump" /f >nul
if errorlevel 1 exit /b 1
reg add "%CLASS%\shell\open" /v FriendlyAppName /d "oomscope" /f >nul
if errorlevel 1 exit /b 1
reg add "%CLASS%\shell\open\command" /ve /d "\"%PROGRAM%\" \"%%1\"" /f >nul
if errorlevel 1 exit /b 1
reg add "%WITH%" /v oomscope.dump /t REG_NONE /f >nul
if errorlevel 1 exit /b 1
echo oomscope is offered under "Open with" for .dmp files now.
