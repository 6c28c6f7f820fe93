use super::*;
use proptest::prelude::*;

/// name, path, append, by which element
type Row = (&'static str, &'static str, Option<bool>, ManagedBy);

fn domain(devices: &str) -> String {
    format!(
        "<?xml version='1.0'?>\n<domain type='kvm' id='3' \
         xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n\
         <name>vm</name>\n<!-- <serial type='file'/> -->\n<devices>\n{devices}\n</devices>\n\
         <qemu:commandline><qemu:arg value='-s'/></qemu:commandline></domain>\n"
    )
}

fn rows(xml: &str) -> Vec<(String, String, Option<bool>, ManagedBy)> {
    consoles(xml)
        .unwrap()
        .into_iter()
        .map(|c| {
            let path = c.path.to_str().unwrap().to_owned();
            (c.name, path, c.append, c.managed_by)
        })
        .collect()
}

#[test]
fn logs_are_found_where_real_domains_have_them() {
    use ManagedBy::{Log, Source};
    let nova = "/var/lib/nova/instances/5e2f/console.log";
    let table: &[(&str, &str, &[Row])] = &[
        (
            "Nova: a pty with a log, mirrored by the console",
            "<serial type='pty'><source path='/dev/pts/2'/>\
               <log file='/var/lib/nova/instances/5e2f/console.log' append='off'/>\
               <target type='isa-serial' port='0'><model name='isa-serial'/></target>\
               <alias name='serial0'/></serial>\
             <console type='pty' tty='/dev/pts/2'><source path='/dev/pts/2'/>\
               <log file='/var/lib/nova/instances/5e2f/console.log' append='off'/>\
               <target type='serial' port='0'/><alias name='serial0'/></console>",
            &[("serial0", nova, Some(false), Log)],
        ),
        (
            "Nova with a serial console: tcp, with a log",
            "<serial type='tcp'><source mode='bind' host='0.0.0.0' service='10000' tls='no'/>\
               <protocol type='raw'/>\
               <log file='/var/lib/nova/instances/5e2f/console.log' append='off'/>\
               <target port='0'/></serial>\
             <serial type='pty'><target port='1'/></serial>",
            &[("serial0", nova, Some(false), Log)],
        ),
        (
            "KubeVirt: a unix socket with a log, and a guest agent's channel",
            "<serial type='unix'>\
               <source mode='bind' path='/var/run/kubevirt-private/8a/virt-serial0'/>\
               <log file='/var/run/kubevirt-private/8a/virt-serial0-log' append='on'/>\
               <target type='isa-serial' port='0'/></serial>\
             <console type='unix'>\
               <source mode='bind' path='/var/run/kubevirt-private/8a/virt-serial0'/>\
               <log file='/var/run/kubevirt-private/8a/virt-serial0-log' append='on'/>\
               <target type='serial' port='0'/></console>\
             <channel type='unix'><source mode='bind' path='/var/lib/libvirt/q.sock'/>\
               <target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
            &[(
                "serial0",
                "/var/run/kubevirt-private/8a/virt-serial0-log",
                Some(true),
                Log,
            )],
        ),
        (
            "a serial of type file, and the console that mirrors it",
            "<serial type='file'><source path='/srv/vm.log' append='on'>\
               <seclabel model='dac' relabel='no'/></source><target port='0'/></serial>\
             <console type='file'><source path='/srv/vm.log' append='on'/>\
               <target type='serial' port='0'/></console>",
            &[("serial0", "/srv/vm.log", Some(true), Source)],
        ),
        (
            "several serials, out of order, without append",
            "<serial type='pty'><log file='/l/one'/><target port='1'/></serial>\
             <serial type='file'><source path='/l/zero'/><target port='0'/></serial>",
            &[
                ("serial1", "/l/one", None, Log),
                ("serial0", "/l/zero", None, Source),
            ],
        ),
        (
            "a virtio console beside a serial; the serial comes first",
            "<console type='pty'><log file='/l/hvc0' append='on'/>\
               <target type='virtio' port='1'/></console>\
             <serial type='pty'><log file='/l/ttyS0' append='on'/><target port='0'/></serial>",
            &[
                ("serial0", "/l/ttyS0", Some(true), Log),
                ("console1", "/l/hvc0", Some(true), Log),
            ],
        ),
        (
            "a parallel port and channels, one of them forwarding a port",
            "<channel type='unix'><source mode='bind'/>\
               <target type='guestfwd' address='10.0.2.1' port='4600'/></channel>\
             <channel type='file'><source path='/l/trace'/>\
               <target type='virtio' name='trace'/></channel>\
             <parallel type='file'><source path='/l/lp'/><target port='0'/></parallel>",
            &[
                ("parallel0", "/l/lp", None, Source),
                ("channel1", "/l/trace", None, Source),
            ],
        ),
        (
            "one device that writes a file and is logged as well",
            "<serial type='file'><source path='/l/a'/><log file='/l/b'/>\
               <target port='0'/></serial>",
            &[
                ("serial0", "/l/a", None, Source),
                ("serial0-2", "/l/b", None, Log),
            ],
        ),
        (
            "a port that stands there twice",
            "<serial type='pty'><log file='/l/a'/><target port='0'/></serial>\
             <serial type='pty'><log file='/l/b'/><target port='0'/></serial>",
            &[
                ("serial0", "/l/a", None, Log),
                ("serial0-2", "/l/b", None, Log),
            ],
        ),
        (
            "no ports at all, as in an XML written by hand",
            "<serial type='pty'><log file='/l/a'/></serial>\
             <serial type='pty'/><serial type='pty'><log file='/l/c'/></serial>",
            &[
                ("serial0", "/l/a", None, Log),
                ("serial2", "/l/c", None, Log),
            ],
        ),
        (
            "escapes in a path",
            "<serial type='pty'><log file='/l/a &amp; b&#x27;&quot;&lt;\u{e9}.log'/></serial>",
            &[("serial0", "/l/a & b'\"<\u{e9}.log", None, Log)],
        ),
        (
            "no log: a pty, a dev, a null",
            "<serial type='pty'><source path='/dev/pts/1'/></serial>\
             <serial type='dev'><source path='/dev/ttyS0'/></serial>\
             <serial type='null'/>",
            &[],
        ),
        (
            "elements of those names that are not devices",
            "<disk><serial type='file'><source path='/l/no'/></serial></disk>\
             <serial type='pty'><x><log file='/l/no'/></x></serial>",
            &[],
        ),
    ];
    for (name, devices, want) in table {
        let got = rows(&domain(devices));
        let got: Vec<_> = got
            .iter()
            .map(|(n, p, a, m)| (n.as_str(), p.as_str(), *a, *m))
            .collect();
        assert_eq!(got.as_slice(), *want, "{name}");
    }
}

#[test]
fn broken_and_hostile_xml_is_an_error() {
    let entity = "<!DOCTYPE domain [<!ENTITY a 'x'>]><domain><devices/></domain>";
    let deep = format!(
        "<domain>{}{}</domain>",
        "<a>".repeat(300),
        "</a>".repeat(300)
    );
    for (xml, says) in [
        (String::new(), "there is no domain in it"),
        ("not xml at all".to_owned(), "there is no domain in it"),
        ("<network/>".to_owned(), "\"network\" is not a domain"),
        ("<domain/><domain/>".to_owned(), "is not a domain"),
        ("<domain><devices>".to_owned(), "\"devices\" does not end"),
        ("<domain><a></b></domain>".to_owned(), "at byte"),
        ("<domain></domain></x>".to_owned(), "at byte"),
        ("<domain><!-- ".to_owned(), "at byte"),
        (entity.to_owned(), "document type"),
        (deep, "more than 256 elements"),
        (
            domain("<serial><log file='/a' file='/b'/></serial>"),
            "duplicate",
        ),
        (domain("<serial><log file='/&nope;'/></serial>"), "nope"),
    ] {
        let error = consoles(&xml).unwrap_err().to_string();
        assert!(error.contains(says), "{xml:.80}: {error}");
        assert!(error.starts_with("the XML of the domain cannot be used: "));
    }
}

/// libvirt takes each of these: the domain runs, and migrates.
#[test]
fn a_device_that_cannot_be_followed_is_left_out_alone() {
    let good = "<serial type='pty'><log file='/l/good'/><target port='7'/></serial>";
    for (odd, says) in [
        (
            "<serial><log file='console.log'/></serial>",
            "\"console.log\", has no path from the root",
        ),
        (
            "<serial type='file'><source path='../x'/></serial>",
            "no path from the root",
        ),
        ("<serial><log file=''/></serial>", "no path from the root"),
        (
            "<channel><log file='/var/log/'/></channel>",
            "names no file",
        ),
        ("<serial><log file='/var/..'/></serial>", "names no file"),
        ("<parallel><log file='/'/></parallel>", "names no file"),
    ] {
        for devices in [format!("{good}{odd}"), format!("{odd}{good}")] {
            let found = read(&domain(&devices)).unwrap();
            let names: Vec<_> = found.logs.iter().map(|c| c.name.as_str()).collect();
            assert_eq!(names, ["serial7"], "{odd}");
            assert_eq!(found.left_out.len(), 1, "{:?}", found.left_out);
            assert!(found.left_out[0].contains(says), "{:?}", found.left_out);
        }
    }
    // A mirror says nothing new.
    let log = "<log file='console.log'/><target type='serial' port='0'/>";
    let both = format!("<serial type='pty'>{log}</serial><console type='pty'>{log}</console>");
    assert_eq!(read(&domain(&both)).unwrap().left_out.len(), 1);
}

#[test]
fn what_is_odd_about_a_device_costs_no_log() {
    for (devices, name, append) in [
        (
            "<serial><log file='/l/a' append='default'/></serial>",
            "serial0",
            None,
        ),
        (
            "<serial><log file='/l/a' append='maybe'/></serial>",
            "serial0",
            None,
        ),
        (
            "<serial><log file='/l/a'/><target port='-1'/></serial>",
            "serial0",
            None,
        ),
        (
            "<serial/><serial><log file='/l/a' append='on'/><target port='x'/></serial>",
            "serial1",
            Some(true),
        ),
    ] {
        let found = read(&domain(devices)).unwrap();
        assert!(found.left_out.is_empty(), "{:?}", found.left_out);
        let of: Vec<_> = found
            .logs
            .iter()
            .map(|c| (c.name.as_str(), c.append))
            .collect();
        assert_eq!(of, [(name, append)], "{devices}");
    }
    let many = "<serial type='pty'/>".repeat(255)
        + "<serial><log file='/l/last'/></serial><serial><log file='/l/more'/></serial>";
    let found = read(&domain(&many)).unwrap();
    assert_eq!(found.logs.len(), 1);
    assert_eq!(found.logs[0].path, Path::new("/l/last"));
    assert!(
        found.left_out[0].contains("devices 1 are more than the 256"),
        "{:?}",
        found.left_out
    );
}

#[test]
fn a_device_is_found_only_among_the_devices() {
    assert!(has_device(&domain("<tpm model='tpm-crb'/>"), "tpm").unwrap());
    assert!(!has_device(&domain("<disk><tpm/></disk>"), "tpm").unwrap());
}

/// A model of a domain's devices, and what must be found of it.
#[derive(Clone, Debug)]
struct Dev {
    kind: Kind,
    file: Option<u8>,
    log: Option<u8>,
    port: Option<u8>,
}

fn dev() -> impl Strategy<Value = Dev> {
    let kind = prop::sample::select(vec![
        Kind::Serial,
        Kind::Console,
        Kind::Parallel,
        Kind::Channel,
    ]);
    let small = || prop::option::of(0_u8..6);
    (kind, small(), small(), small()).prop_map(|(kind, file, log, port)| Dev {
        kind,
        file,
        log,
        port,
    })
}

impl Dev {
    fn xml(&self) -> String {
        let kind = self.kind;
        let backend = if self.file.is_some() { "file" } else { "pty" };
        let source = self.file.map(|n| format!("<source path='/l/{n}'/>"));
        let log = self.log.map(|n| format!("<log file='/l/{n}'/>"));
        let target = self.port.map(|n| format!("<target port='{n}'/>"));
        format!(
            "<{kind} type='{backend}'>{}{}{}</{kind}>",
            source.unwrap_or_default(),
            log.unwrap_or_default(),
            target.unwrap_or_default()
        )
    }
}

proptest! {
    #[test]
    fn every_path_is_found_once_under_a_name_of_its_own(devs in prop::collection::vec(dev(), 0..8)) {
        let devices: String = devs.iter().map(Dev::xml).collect();
        let found = consoles(&domain(&devices)).unwrap();

        let mut want: Vec<u8> = devs.iter().flat_map(|d| [d.file, d.log]).flatten().collect();
        want.sort_unstable();
        want.dedup();
        let mut paths: Vec<String> = found.iter().map(|c| c.path.to_str().unwrap().to_owned()).collect();
        paths.sort();
        let want: Vec<String> = want.iter().map(|n| format!("/l/{n}")).collect();
        prop_assert_eq!(paths, want);

        let mut names: Vec<&str> = found.iter().map(|c| c.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(names.len(), found.len());
        prop_assert!(found.is_sorted_by_key(|c| c.kind));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}", cut in 0_usize..400) {
        drop(consoles(&text));
        let whole = domain("<serial type='pty'><log file='/l/\u{e9}' append='on'/></serial>");
        let cut = (0..=cut.min(whole.len())).rev().find(|&i| whole.is_char_boundary(i)).unwrap();
        // The last byte is a newline; without it the XML is still whole.
        prop_assert_eq!(consoles(&whole[..cut]).is_ok(), cut + 1 >= whole.len());
    }
}
