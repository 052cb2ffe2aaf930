use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(&File { path: "lookback.toml".into(), text: text.into() })
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn the_printed_default_is_the_default() {
    assert_eq!(parse(&Config::print_default()).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(Config::load(None).unwrap(), Config::default());
}

#[test]
fn every_key_of_the_printed_default_is_explained() {
    let text = Config::print_default();
    let lines: Vec<&str> = text.lines().collect();
    let keys = lines.iter().enumerate().filter(|(_, line)| line.contains(" = "));
    for (i, line) in keys.clone().filter(|(_, line)| !line.starts_with('#')) {
        assert!(lines[i - 1].starts_with("# "), "{line} is not explained");
        assert!(lines[i - 1].ends_with('.'), "{}", lines[i - 1]);
        assert!(lines.iter().all(|line| line.len() <= 100), "{line}");
    }
    // Changing any printed value changes the configuration, or the key would mean nothing.
    for (i, line) in keys.filter(|(_, line)| !line.starts_with('#')) {
        let (key, value) = line.split_once(" = ").unwrap();
        let other = match value {
            _ if key == "broker" => "\"mqtt://x\"".into(),
            _ if key == "window" => "\"01:00-05:00\"".into(),
            _ if key == "listen" => "\"127.0.0.1:1\"".into(),
            "false" => "true".into(),
            "true" => "false".into(),
            "\"network\"" => "\"background\"".into(),
            "\"info\"" => "\"debug\"".into(),
            "\"tensorrt\"" | "\"cpu\"" => "\"cuda\"".into(),
            "\"alert\"" => "\"never\"".into(),
            text if text.starts_with('"') => format!("\"x{}", &text[1..]),
            "0.5" => "0.6".into(),
            "0.2" => "0.3".into(),
            "0" => "1".into(),
            number => number.replace(['1', '2', '3', '5', '6', '8'], "4"),
        };
        let mut changed = lines.clone();
        let line = format!("{key} = {other}");
        changed[i] = &line;
        assert_ne!(parse(&changed.join("\n")).unwrap(), Config::default(), "{line}");
    }
}

#[test]
fn what_is_given_is_taken_and_the_rest_stays_default() {
    let config = parse(
        "[store]\nbytes_max_mb = 1_024\nhours = 3\n[inquiry]\nframes = 32\nturns = 0\n\
         [sentinel]\npatrol_s = 0\n[events]\nalert_at = 0.9\n\
         [[camera]]\nsource = 'v4l2:/dev/video0'\nnormal = \"cars queue\"\n\
         [[camera]]\nname = 'yard'\nsource = 'file:a.mp4'\n",
    )
    .unwrap();
    assert_eq!((config.store.bytes_max_mb, config.store.hours), (1024, 3.0));
    assert_eq!(config.store.jpeg_quality, 85);
    assert_eq!((config.inquiry.frames, config.inquiry.turns), (Some(32), None));
    assert_eq!(config.sentinel.patrol_s, None);
    assert_eq!((config.events.notice_at, config.events.alert_at), (None, Some(0.9)));
    let names: Vec<&str> = config.cameras.iter().map(|camera| camera.name.as_str()).collect();
    assert_eq!(names, ["camera-1", "yard"]);
    assert_eq!(config.cameras[0].normal, "cars queue");
    assert_eq!(config.store.options().bytes_max, 1 << 30);
    assert_eq!(config.store.options().thinning.hours_s, 10_800.0);
}

#[test]
fn the_default_store_is_the_stores_own_default() {
    assert_eq!(Store::default().options(), frame_store::StoreOptions::default());
}

#[test]
fn the_default_sentinel_is_the_sentinels_own_default() {
    assert_eq!(Sentinel::default().options(), ::sentinel::SentinelOptions::default());
}

#[test]
fn the_sentinels_gate_is_the_one_that_is_named() {
    for kind in [::sentinel::GateKind::Network, ::sentinel::GateKind::Background] {
        let text = format!("[sentinel]\ngate = \"{}\"\n", kind.name());
        assert_eq!(parse(&text).unwrap().sentinel.options().gate, kind);
    }
}

#[test]
fn every_mistake_is_named_with_its_line_and_what_would_be_right() {
    for (text, expected) in [
        (
            "[inquiry]\n\nfraems = 8",
            "line 3: there is no key 'fraems' in [inquiry]; did you mean 'frames'?",
        ),
        (
            "[store]\nlook_back_s = 8",
            "line 2: there is no key 'look_back_s' in [store]; it belongs in [inquiry]",
        ),
        (
            "[device]\njpg_quality = 8",
            "line 2: there is no key 'jpg_quality' in [device]; did you mean 'jpeg_quality' in \
             [store]?",
        ),
        (
            "[device]\nqqq = 8",
            "line 2: there is no key 'qqq' in [device]; there are name, data_dir",
        ),
        ("\n[sentinal]\n", "line 2: there is no section [sentinal]; did you mean [sentinel]?"),
        (
            "[qqq]\n",
            "line 1: there is no section [qqq]; there are device, camera, store, sentinel, inquiry, \
             events, uplink, mqtt, update, os, metrics, board, log",
        ),
        (
            "threads = 2",
            "line 1: there is no key 'threads' outside of a section; it belongs in [inquiry]",
        ),
        (
            "qqq = 2",
            "line 1: there is no key 'qqq' outside of a section; every key belongs in a section, \
             such as [device]",
        ),
        (
            "[store]\njpeg_quality = 101",
            "line 2: store.jpeg_quality is 101, it must be a whole number from 1 to 100",
        ),
        (
            "[store]\njpeg_quality = \"85\"",
            "line 2: store.jpeg_quality is \"85\", it must be a whole number from 1 to 100",
        ),
        (
            "[inquiry]\nlook_back_s = nan",
            "line 2: inquiry.look_back_s is nan, it must be a number from 1 to 3600",
        ),
        (
            "[inquiry]\nthreads = -1",
            "line 2: inquiry.threads is -1, it must be a whole number from 0 to 256",
        ),
        (
            "[inquiry]\nthreads = 99999999999999999999",
            "line 2: inquiry.threads is 99999999999999999999, it must be a whole number from 0 to 256",
        ),
        (
            "[events]\nreport_normal = 1",
            "line 2: events.report_normal is 1, it must be true or false",
        ),
        (
            "[log]\nlevel = 'loud'",
            "line 2: log.level is 'loud', it must be one of \"off\", \"error\", \"warn\", \"info\", \
             \"debug\", \"trace\"",
        ),
        (
            "[device]\nname = ' '",
            "line 2: device.name is ' ', it must be a text of one line in quotation marks, not empty",
        ),
        (
            "[device]\nname = \"a\\nb\"",
            "line 2: device.name is \"a\\nb\", it must be a text of one line in quotation marks, \
             not empty",
        ),
        (
            "[camera]\nsource = 'sim:'",
            "line 1: camera is something else, it must be a section that can be repeated: write \
             [[camera]]",
        ),
        ("[[store]]\n", "line 1: store is something else, it must be one section: write [store]"),
        (
            "[log]\n[[camera]]\nname = 'gate'",
            "line 2: this [[camera]] has no source; add one, such as source = \"sim:seed=263\"",
        ),
        (
            "[[camera]]\nsource = 'sim:'\nname = 'a'\n[[camera]]\nsource = 'sim:'\nname = 'a'",
            "line 4, [camera]: two cameras are called 'a': give each a name",
        ),
        (
            "[[camera]]\nsource='sim:'\n[[camera]]\nsource='sim:'\n[[camera]]\nsource='sim:'\n\
             [[camera]]\nsource='sim:'\n[[camera]]\nsource='sim:'",
            "line 9, [camera]: there are 5 cameras, and one device watches at most 4: give the \
             others to another device",
        ),
        (
            "[store]\nbytes_max_mb = 16\n",
            "line 1, [store]: bytes_max_mb must be at least four times segment_mb",
        ),
        ("[sentinel]\nrest_at = 0.9\n", "line 1, [sentinel]: rest_at must not exceed wake_at"),
        (
            "[mqtt]\nbroker = 'tcp://x'",
            "line 1, [mqtt]: broker: 'tcp://x' is no MQTT broker (it begins with neither mqtt:// nor \
             mqtts://): write it as mqtt://HOST, mqtts://HOST or with :PORT",
        ),
        (
            "[mqtt]\nbroker = 'mqtt://olga:secret@x'",
            "line 1, [mqtt]: broker: '…@x' is no MQTT broker (user and password stand in username and \
             password_file): write it as mqtt://HOST, mqtts://HOST or with :PORT",
        ),
        (
            "[mqtt]\nbroker = 'mqtt://x'\nprefix = 'a/#'",
            "line 1, [mqtt]: prefix must not contain + or # or control characters",
        ),
        (
            "[mqtt]\nbroker = 'mqtt://x'\ndiscovery = '/ha'",
            "line 1, [mqtt]: discovery must be levels with one / between them",
        ),
        (
            "[mqtt]\nbroker = 'mqtt://x'\npassword_file = '/x'",
            "line 1, [mqtt]: a password_file needs a username",
        ),
        (
            "[mqtt]\nbroker = 'mqtts://x'\nkey = '/x'",
            "line 1, [mqtt]: certificate and key belong together: give both or none",
        ),
        (
            "[mqtt]\nbroker = 'mqtt://x'\nkey = '/x'\ncertificate = '/y'",
            "line 1, [mqtt]: a certificate needs a broker of the form mqtts://HOST",
        ),
        (
            "[metrics]\nlisten = '9464'",
            "line 1, [metrics]: listen is \"9464\", it must be an address and a port, such as \
             \"127.0.0.1:9464\"",
        ),
        (
            "[events]\nnotice_at = 0.9\nalert_at = 0.5",
            "line 1, [events]: notice_at must not exceed alert_at",
        ),
    ] {
        let expected = format!("configuration 'lookback.toml', {expected}");
        // What follows must not move the line.
        assert_eq!(refusal(&format!("{text}\n\n\n\n\n\n\n\n\n")), expected, "{text}");
    }
}

#[test]
fn a_window_that_is_none_is_refused_with_what_would_be_one() {
    let refused = refusal("[update]\nwindow = \"1-5\"\n");
    assert!(refused.contains("[update]") && refused.contains("HH:MM-HH:MM"), "{refused}");
    let open = parse("[update]\nwindow = \"22:00-04:00\"\n").unwrap();
    assert!(open.update.fetching_window().unwrap().is_some());
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    for (text, line) in [("[store\n", 1), ("a = 1\na = 2\n", 2), ("\n\n{}", 3), ("\0", 1)] {
        let refusal = refusal(text);
        let head = format!("configuration 'lookback.toml', line {line}: ");
        assert!(refusal.starts_with(&head) && !refusal.contains('\n'), "{refusal}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lookback.toml");
    let refusal = |path: &Path| Config::load(Some(path)).unwrap_err().to_string();
    assert!(refusal(&path).contains("No such file"), "{}", refusal(&path));
    assert!(refusal(&path).ends_with("prints one to begin with"));
    assert!(refusal(dir.path()).contains("is a directory, not a TOML file"));
    std::fs::write(&path, b"name = \"\xff\"").unwrap();
    assert!(refusal(&path).contains("is not UTF-8 text"));
    std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(refusal(&path).contains("larger than 1 MiB"));
    std::fs::write(&path, "\u{feff}[log]\r\nlevel = 'warn'\r\n").unwrap();
    assert_eq!(Config::load(Some(&path)).unwrap().log.level, "warn");
}
