//! Texts of a known form, as documents name them. They are never made: bodies hold the model's own
//! types, and say with these what that looks like from outside.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, Object, ObjectBuilder, RefOr, SchemaFormat, Type, schema::Schema},
};

use crate::model::limits::PLATFORM_ID_BYTES_MAX;

macro_rules! scalar {
    ($(#[doc = $doc:literal])* $name:ident, $example:literal, |$builder:ident| $build:expr) => {
        $(#[doc = $doc])*
        pub enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let $builder = text()
                    .description(Some(concat!($($doc),*).trim()))
                    .examples([$example]);
                Schema::Object($build.build()).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    };
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

scalar!(
    /// An id of the broker's own choice.
    OwnId,
    "6b02d81d552a392a02314930",
    |builder| builder.pattern(Some("^[0-9a-f]{24}$"))
);

scalar!(
    /// An id that a platform chose: any text of up to 255 bytes without control characters.
    PlatformId,
    "0269e284-dcac-4618-89a7-f79e3f1cea6a",
    |builder| builder
        .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]+$"))
        .min_length(Some(1))
        .max_length(Some(PLATFORM_ID_BYTES_MAX))
);

scalar!(
    /// A time in UTC.
    Time,
    "2026-11-22T16:20:00.000Z",
    |builder| builder.format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
);

/// That text of a moment: RFC 3339, to the millisecond, as the original has it.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

scalar!(
    /// A version of the database.
    DatabaseVersion,
    "3.6.16",
    |builder| builder.pattern(Some(r"^[0-9]+\.[0-9]+\.[0-9]+$"))
);

/// One of a few words.
pub fn words<'a>(words: impl Iterator<Item = &'a str>) -> Object {
    text().enum_values(Some(words.map(str::to_owned))).build()
}
