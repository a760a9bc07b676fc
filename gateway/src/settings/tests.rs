use super::*;

fn read(args: &[&str]) -> Result<Asked, SettingsError> {
    Settings::read(
        std::iter::once("roomgate")
            .chain(args.iter().copied())
            .map(Into::into),
    )
}

fn error(args: &[&str]) -> String {
    read(args).expect_err("accepted").0
}

#[test]
fn errors_are_one_line_that_names_the_setting_and_what_it_accepts() {
    for (args, setting, accepts) in [
        (&["--listen", "nowhere"][..], "LISTEN", "127.0.0.1:8080"),
        (&["--room-store", "disk"], "ROOM_STORE", "memory, redis"),
        (&["--heartbeat-ms", "5"], "HEARTBEAT_MS", "100 to 3600000"),
        (&["--heartbeat-ms", "x"], "HEARTBEAT_MS", "digit"),
        (&["--log-level", "loud"], "LOG_LEVEL", "error, warn, info"),
        (
            &["--allowed-origins", "example.com"],
            "ALLOWED_ORIGINS",
            "https://",
        ),
        (&["--node-id", "a b"], "NODE_ID", "A-Z a-z 0-9"),
        (&["--auth-mode", "jwt"], "AUTH_MODE", "JWKS_URL"),
        (&["--auth-mode", "none"], "AUTH_MODE", "anonymous"),
        (&["--jwt-secret", "short"], "JWT_SECRET", "32 bytes"),
        (&["--jwks-url", "ftp://keys"], "JWKS_URL", "https"),
        (&["--user-rates", "posts=1"], "USER_RATES", "messages"),
        (&["--trusted-proxies", "proxy"], "TRUSTED_PROXIES", "10.0.0.0/8"),
        (&["--api-keys", "short"], "API_KEYS", "32"),
        (&["--room-store", "redis"], "REDIS_URL", "redis://"),
        (&["--listen", "0.0.0.0:1"], "AUTH_MODE", "anonymous"),
    ] {
        let line = error(args);
        assert!(line.starts_with(&format!("{setting}: ")), "{line}");
        assert!(line.contains(accepts), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
    assert!(error(&["--unknown"]).contains("--unknown"));
}

#[test]
fn credentials_in_the_archives_address_are_refused_and_not_repeated() {
    for url in ["s3://key:hidden@bucket/a", "https://host/a?sig=hidden"] {
        let line = error(&["--archive-url", url]);
        assert!(line.starts_with("ARCHIVE_URL: "), "{line}");
        assert!(!line.contains("hidden"), "{line}");
    }
    for url in [
        "abfss://container@account.dfs.core.windows.net/a",
        "s3://bucket/a:b@c",
        "/a?b",
    ] {
        let Ok(Asked::Run(settings)) = read(&["--archive-url", url]) else {
            panic!("{url}")
        };
        assert_eq!(settings.archive_url(), Some(url));
    }
    let Ok(Asked::Run(settings)) = read(&["--archive-url", "off"]) else {
        panic!()
    };
    assert_eq!(settings.archive_url(), None);
}

#[test]
fn a_redis_url_chooses_redis() {
    let Ok(Asked::Run(settings)) = read(&["--redis-url", "redis://127.0.0.1"]) else {
        panic!()
    };
    assert_eq!(settings.store_kind(), StoreKind::Redis);
    let Ok(Asked::Run(settings)) = read(&["--redis-url", "redis://x", "--room-store", "memory"]) else {
        panic!()
    };
    assert_eq!(settings.store_kind(), StoreKind::Memory);
}

#[test]
fn every_setting_has_a_variable_and_a_line_of_help() {
    for argument in Settings::command().get_arguments() {
        let id = argument.get_id().as_str();
        if argument.is_hide_set() || matches!(id, "help" | "version") {
            continue;
        }
        let flag = argument
            .get_long()
            .expect("a flag")
            .replace('-', "_")
            .to_uppercase();
        assert_eq!(
            argument.get_env().map(|v| v.to_string_lossy().into_owned()),
            Some(flag),
            "{id}"
        );
        assert!(argument.get_help().is_some(), "{id}");
    }
}
