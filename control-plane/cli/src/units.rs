//! Parses labels, references and ports of the command line; prints sizes and times for people.

use muster_api::{
    disk::{CreateDisk, DiskSource},
    image::VersionOrNumber,
    network::PublishPort,
    packet::PortProtocol,
    units::parse_size,
};

/// Parses `KEY=VALUE`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("expected KEY=VALUE, got '{text}'")),
    }
}

/// Checks that the text is `KEY=VALUE`.
pub(crate) fn parse_label_text(text: &str) -> Result<String, String> {
    parse_label(text).map(|_| text.to_owned())
}

/// Parses `IMAGE` or `IMAGE@N`.
pub(crate) fn parse_image(text: &str) -> Result<(&str, Option<u64>), String> {
    match text.split_once('@') {
        None => Ok((text, None)),
        Some((image, number)) => match number.parse() {
            Ok(n) if n > 0 && !image.is_empty() => Ok((image, Some(n))),
            _ => Err(format!("expected IMAGE or IMAGE@N with a number from 1, got '{text}'")),
        },
    }
}

/// Prints a size: `1.4 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10;
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_235 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = next;
    }
    if tenths % 10 == 0 || tenths >= 1000 {
        format!("{} {unit}", (tenths + 5) / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// Prints a duration: `350 ms`, `2.1 s`, `3 min 5 s`.
pub(crate) fn millis(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..100_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// Prints an age: `12s`, `3m`, `5h`, `12d`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6_000 => format!("{}m", seconds / 60),
        6_000..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Parses `80`, `30080:80` or `53/udp`: a port of an instance, and the port of its node if that is given.
pub(crate) fn parse_published(text: &str) -> Result<PublishPort, String> {
    let wrong = || format!("a published port is [NODE_PORT:]PORT[/udp], such as 80 or 30080:80; got '{text}'");
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.split('/').next().unwrap_or(text), PortProtocol::Tcp),
        Some((ports, "udp")) => (ports, PortProtocol::Udp),
        Some(_) => return Err(wrong()),
    };
    let (node_port, port) = ports.split_once(':').map_or((None, ports), |(node, port)| (Some(node), port));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    Ok(PublishPort { node_port: node_port.map(number).transpose()?, port: number(port)?, protocol })
}

/// Parses `data=10GiB` or `data=10GiB,source=debian@2`: a disk beside the boot disk.
pub(crate) fn parse_disk(text: &str) -> Result<CreateDisk, String> {
    let wrong = || {
        format!(
            "a disk is NAME=SIZE, and ,source=IMAGE[@N] or ,source=VERSION unless it is to be blank, such as data=10GiB; got \
             '{text}'"
        )
    };
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (size, source) = match rest.split_once(',') {
        None => (rest, None),
        Some((size, more)) => (size, Some(more.strip_prefix("source=").ok_or_else(wrong)?)),
    };
    let source = source.map(parse_disk_source).transpose()?;
    Ok(CreateDisk { name: name.to_owned(), size_bytes: parse_size(size)?, source })
}

fn parse_disk_source(text: &str) -> Result<DiskSource, String> {
    if let Ok(version) = text.parse() {
        return Ok(DiskSource { image: None, version: Some(VersionOrNumber::Id(version)) });
    }
    let (image, number) = parse_image(text)?;
    let image = image.parse().map_err(|error| format!("'{image}' is no name of an image: {error}"))?;
    Ok(DiskSource { image: Some(image), version: number.map(VersionOrNumber::Number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_references_may_carry_a_number() {
        assert_eq!(parse_image("debian"), Ok(("debian", None)));
        assert_eq!(parse_image("debian@12"), Ok(("debian", Some(12))));
        for bad in ["debian@", "debian@0", "debian@x", "@1"] {
            assert!(parse_image(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_disk_is_blank_unless_it_has_a_source() {
        let blank = CreateDisk { name: "data".to_owned(), size_bytes: 10 << 30, source: None };
        assert_eq!(parse_disk("data=10GiB"), Ok(blank.clone()));
        let of = |image: &str, number| DiskSource {
            image: Some(image.parse().expect("a name")),
            version: Some(VersionOrNumber::Number(number)),
        };
        let source = Some(of("debian", 2));
        assert_eq!(parse_disk("data=10GiB,source=debian@2"), Ok(CreateDisk { source, ..blank.clone() }));
        let id = "0192f0c1-2345-7abc-8def-0123456789ab";
        let version = Some(VersionOrNumber::Id(id.parse().expect("an id")));
        let source = Some(DiskSource { image: None, version });
        assert_eq!(parse_disk(&format!("data=10GiB,source={id}")), Ok(CreateDisk { source, ..blank }));
        for bad in ["data", "data=", "data=x", "data=1GiB,debian", "data=1GiB,source=debian@0"] {
            assert!(parse_disk(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn printed_sizes_are_short() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (512 << 20, "512 MiB"),
            ((1 << 30) - 1, "1 GiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn printed_times_are_short() {
        assert_eq!(millis(350), "350 ms");
        assert_eq!(millis(2_149), "2.1 s");
        assert_eq!(millis(185_000), "3 min 5 s");
        assert_eq!(age(59), "59s");
        assert_eq!(age(3_600), "60m");
        assert_eq!(age(400_000), "4d");
    }
}
